"""How commands end: their exit code and their line, whatever happens to them."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import typer

from optimize.__main__ import main
from optimize.cli import logs as logs_module
from optimize.cli import names
from optimize.cli.remedies import REMEDIES, explain
from optimize.cli.signals import Heed
from optimize.errors import DataError, StageError
from optimize.files.assembling import assembled

HERE = Path(__file__).parents[2]
NOT_FORESEEN = "this was not foreseen, please report it with "


def full(number: int, *paths: str) -> OSError:
    return OSError(number, os.strerror(number), paths[0], None, *paths[1:]) if paths else OSError(number, "words")


COPY = shutil.Error([("a", "/out/b", f"[Errno {errno.ENOSPC}] No space left on device"), ("c", "d", "too")])
ENDINGS: list[tuple[BaseException, int, str]] = [
    (ZeroDivisionError("division by zero"), 3, f"ZeroDivisionError: division by zero; {NOT_FORESEEN}"),
    (RecursionError("too deep"), 3, f"RecursionError: too deep; {NOT_FORESEEN}"),
    (MemoryError(), 3, f"MemoryError; {NOT_FORESEEN}"),
    (StopIteration(), 3, "StopIteration"),
    (AssertionError("one\ntwo"), 3, f"AssertionError: one; {NOT_FORESEEN}"),
    (KeyError("x"), 3, "KeyError: 'x'; "),
    (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), 3, "UnicodeDecodeError: "),
    (UnicodeEncodeError("utf-8", "a\udcff", 1, 2, "surrogates not allowed"), 2, "'a\\udcff': is not UTF-8; rename"),
    (ImportError("no rich"), 3, "ImportError: no rich; install distilbert-optimize anew"),
    (EOFError("early"), 3, "EOFError: early; "),
    (SystemExit(1), 3, "a library ended the process with 1; "),
    (SystemExit(0), 3, "a library ended the process with 0; "),
    (SystemExit("words"), 3, "a library ended the process with 'words'; "),
    (GeneratorExit(), 3, "GeneratorExit; "),
    (KeyboardInterrupt(), 130, "interrupted; what is finished is kept"),
    (StageError("stage x: failed; look"), 3, "stage x: failed; look"),
    (DataError("data: bad; mend"), 2, "data: bad; mend"),
    (typer.BadParameter("wrong"), 2, "Invalid value: wrong"),
    (OSError("a library's words"), 3, f"OSError: a library's words; {NOT_FORESEEN}"),
    (BrokenPipeError(errno.EPIPE, "Broken pipe"), 3, "Broken pipe; a process of this run ended early; "),
    (full(errno.ENOSPC, "/out/x"), 3, "/out/x: No space left on device; free some space there, "),
    (full(errno.ENOTDIR, "/out/x"), 3, "/out/x: Not a directory; a part of that path is a file; "),
    (full(errno.EXDEV, "/a", "/b"), 3, "/a -> /b: Invalid cross-device link; two disks meet"),
    (COPY, 3, "/out/b: No space left on device; free some space there, "),
]


@pytest.fixture
def logs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "distilbert-optimize" / "log"


@pytest.fixture
def command_line(monkeypatch: pytest.MonkeyPatch, logs: Path) -> Callable[..., object]:
    """Run the command in this process; gives the exit code."""

    def run(*words: str) -> object:
        monkeypatch.setattr(sys, "argv", ["optimize", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code

    return run


@pytest.fixture
def raising(command_line, monkeypatch: pytest.MonkeyPatch, capfd) -> Callable[..., tuple[int, str]]:
    """Run a command in which something is raised; its exit code and what it wrote to stderr."""

    def run(failure: BaseException) -> tuple[int, str]:
        def fail() -> None:
            raise failure

        monkeypatch.setattr(names, "describe_machine", fail)
        code = command_line("doctor")
        out, err = capfd.readouterr()
        assert out == ""
        return code, err

    return run


@pytest.mark.parametrize(("failure", "code", "says"), ENDINGS, ids=[repr(failure) for failure, _, _ in ENDINGS])
def test_whatever_is_raised_ends_in_one_line_and_never_with_1(raising, failure, code: int, says: str) -> None:
    ended, err = raising(failure)

    (line,) = err.splitlines()
    assert (ended, line.startswith(f"optimize: {says}")) == (code, True), line


def test_the_log_holds_the_traceback(raising, logs: Path) -> None:
    _, err = raising(ZeroDivisionError("division by zero"))

    (log,) = logs.iterdir()
    assert err.endswith(f"with {log}\n")
    text = log.read_text(encoding="utf-8")
    assert "optimize doctor" in text
    assert text.endswith("ZeroDivisionError: division by zero\n")


def test_where_no_log_can_be_written_the_line_says_how_to_see_it(raising, logs: Path, monkeypatch) -> None:
    logs.parents[1].touch()
    monkeypatch.setattr(logs_module, "_folders", lambda: [logs])

    assert raising(MemoryError())[1].endswith("report it with what --verbose shows\n")


@pytest.mark.parametrize("number", sorted(errno.errorcode))
def test_every_error_of_the_system_has_a_remedy(number: int) -> None:
    said = explain(full(number, "/x"))

    assert str(said).startswith(f"/x: {os.strerror(number)}; ")


def test_no_error_has_two_remedies() -> None:
    listed = [name for row in REMEDIES for name in row.split()]
    assert len(listed) == len(set(listed))


def shell(script: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A shell's line in which "$@" is the command."""
    command = ["bash", "-c", f"set -o pipefail; {script}", "sh", sys.executable, "-m", "optimize", *words]
    known = {**os.environ, "PYTHONPATH": str(HERE), **environment}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=known, timeout=60)


STREAMS = [
    ('"$@" | head -c0', 0),
    ('"$@" >&-', 0),
    ('"$@" 2>&-', 0),
    ('"$@" <&- >&- 2>&-', 0),
    ('"$@" 2>/dev/full', 0),
    ('"$@" >/dev/full', 3),
]


@pytest.mark.parametrize(("script", "code"), STREAMS, ids=[script for script, _ in STREAMS])
def test_streams_that_fail_are_no_failure_of_the_work(script: str, code: int) -> None:
    ended = shell(script, "list", "--json")

    assert ended.returncode == code
    assert len(ended.stderr.splitlines()) == (1 if code else 0), ended.stderr


@pytest.mark.parametrize("script", ['"$@" 2>&-', '"$@" 2>/dev/full', '"$@" >&-', '"$@" 2> >(true)'])
def test_a_refusal_keeps_its_code_whoever_reads_it(script: str) -> None:
    assert shell(script, "plan", "--pipeline", "none").returncode == 2


def test_what_an_encoding_lacks_is_escaped() -> None:
    ended = shell('"$@"', "plan", "--pipeline", "ü.yaml", PYTHONIOENCODING="ascii")

    assert (ended.returncode, "\\xfc.yaml" in ended.stderr) == (2, True), ended.stderr


@pytest.mark.parametrize("flag", ["--model", "--data", "--out", "--cache", "--pipeline", "--revision", "--columns"])
def test_a_name_that_is_not_utf8_is_refused_by_plan(command_line, capfd, flag: str) -> None:
    code = command_line("plan", "--model", "demo", flag, "text=\udcff")

    (line,) = capfd.readouterr().err.splitlines()
    assert (code, line.startswith(f"optimize: {flag}: ")) == (2, True), line
    assert "is not UTF-8; rename it" in line


def test_a_module_that_cannot_be_imported_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise ImportError('broken')", encoding="utf-8")
    ended = shell('"$@"', "list", PYTHONPATH=f"{tmp_path}:{HERE}", XDG_STATE_HOME=str(tmp_path))

    (line,) = ended.stderr.splitlines()
    assert (ended.returncode, line.startswith("optimize: ImportError: broken; install ")) == (3, True), line


SIGNALS = [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "ended by SIGTERM")]
SIGNALS += [(signal.SIGHUP, 129, "ended by SIGHUP")]
WORK = """
import signal, sys, time
from pathlib import Path
from optimize.artifact import Artifact
from optimize.files.assembling import assembled
from optimize.__main__ import main
from optimize.files.assembling import assembled
from optimize.cli import logs as logs_module
from optimize.cli import names
from optimize.measure.workers import Engine, open_workers
from optimize.__main__ import main

def work():
    model = Artifact(kind="torch", path=Path("x"), digest="", size_bytes=0)
    with assembled(Path(OUT), "run") as partial, open_workers([Engine("e", "pytorch", model, "h")], 1):
        (partial / "half").touch()
        print("working", flush=True)
        time.sleep(60)

if __name__ == "__main__":
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # tests may run under nohup
    names.describe_machine = work
    sys.argv = ["optimize", "doctor"]
    main()
"""


@pytest.fixture
def working(tmp_path: Path):
    """A process of its own amid its work: it fills a folder, and an engine's process waits for it."""
    (tmp_path / "work.py").write_text(f"OUT = {str(tmp_path / 'out')!r}\n{WORK}", encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "work.py")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(HERE)},
    )  # fmt: skip
    assert process.stdout.readline() == "working\n"
    yield process
    process.kill()
    process.communicate()


def assert_gone(children: list[psutil.Process], within: float) -> None:
    assert children
    deadline = time.monotonic() + within
    while alive := [each for each in children if not has_ended(each)]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.05)


def has_ended(process: psutil.Process) -> bool:
    """Whether a process runs no more, though whoever is its parent now may not have asked how it ended."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize(("number", "code", "says"), SIGNALS)
def test_a_signal_ends_work_in_one_line_and_leaves_nothing(working, tmp_path: Path, number, code, says) -> None:
    children = psutil.Process(working.pid).children(recursive=True)
    working.send_signal(number)
    _, err = working.communicate(timeout=30)

    assert (working.returncode, err) == (code, f"optimize: {says}; what is finished is kept\n")
    assert list((tmp_path / "out").iterdir()) == []
    assert_gone(children, 20)


def test_processes_of_a_killed_parent_end_and_the_next_run_removes_what_it_left(working, tmp_path: Path) -> None:
    children = psutil.Process(working.pid).children(recursive=True)
    time.sleep(3)  # for the engine's process to be there, and not only begun
    with assembled(tmp_path / "out", "living"):
        assert len(list((tmp_path / "out").iterdir())) == 2  # those of the living stay
    working.kill()
    working.wait()

    assert_gone(children, 20)
    with assembled(tmp_path / "out", "next") as partial:
        assert list((tmp_path / "out").iterdir()) == [partial.parent]


@pytest.mark.parametrize(
    ("failure", "path"),
    [
        (OSError(errno.ENOSPC, "full"), "out"),
        (OSError(errno.ENOSPC, "full", "out/file"), "out/file"),
        (OSError("a library's words"), None),
        (COPY, None),
    ],
    ids=["no path", "a path", "no number", "a copy"],
)
def test_a_disk_that_fails_while_a_folder_is_assembled_is_named(tmp_path: Path, monkeypatch, failure, path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError) as raised, assembled(Path("out"), "run"):  # noqa: PT011
        raise failure

    assert (raised.value.filename, raised.value.errno) == (path, failure.errno)
    assert list(Path("out").iterdir()) == []


def test_a_second_hang_up_does_not_disturb_cleaning_up() -> None:
    heed = Heed()
    with pytest.raises(KeyboardInterrupt):
        heed.hear(signal.SIGHUP, None)

    heed.hear(signal.SIGHUP, None)

    assert heed.first == signal.SIGHUP
