"""Nothing is sent anywhere: a run on local files looks up no name and opens no connection, in Python or below it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import types
from dataclasses import dataclass
from pathlib import Path

import pytest
from hostile.cases import HEAD

from optimize.machine import privacy

ALONE = ("unshare", "-rn")
"""A network namespace of its own, without a single way out."""
CI_SERVICES = ("CI", "TF_BUILD", "GITHUB_ACTIONS", "GITLAB_CI", "CIRCLECI", "TRAVIS", "JENKINS_URL")
CI_SERVICES += ("CODEBUILD_BUILD_ID", "BUILDKITE", "TEAMCITY_VERSION", "APPVEYOR", "BITBUCKET_BUILD_NUMBER")
"""Where one of these is set, ONNX Runtime reports nothing by itself: what is tested is what users have elsewhere."""
WATCH = """
import os, sys
EVENTS = ("socket.connect", "socket.sendto", "socket.sendmsg", "urllib.Request")

def heed(event, arguments):
    looks_up = event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo")
    # Addresses of sockets between processes of one machine are no tuples.
    calls = event in EVENTS and any(isinstance(each, tuple) for each in arguments) or event == "urllib.Request"
    if looks_up or calls:
        note(f"{event} {arguments!r}")

def note(line):
    with open(os.environ["HEARD"], "a", encoding="utf-8") as heard:
        heard.write(line + "\\n")

note("started")
sys.addaudithook(heed)
"""
TRIED = """
import ctypes, socket, sys
if sys.argv[1] == "python":
    try:
        socket.getaddrinfo("reports.invalid", 443)
    except OSError:
        pass
else:
    ctypes.CDLL(None).getaddrinfo(b"reports.invalid", b"443", None, ctypes.byref(ctypes.c_void_p()))
"""
FEW_RUNS = """
from functools import partial
from optimize import running
from optimize.cli.commands import main
running.Settings = partial(running.Settings, min_runs=4, min_seconds=0.0, rounds=2)
main()
"""
"""The command, timing models no longer than a median needs."""
WITHOUT_ORT_SWITCH = """
import sys, onnx, onnxruntime
from onnx import helper, TensorProto
one = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1])
graph = helper.make_graph([helper.make_node("Abs", ["x"], ["y"])], "g", [one("x")], [one("y")])
model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
onnxruntime.InferenceSession(model.SerializeToString())
"""


@dataclass
class Watched:
    """How a process ended, in how many processes of Python it was watched, what these tried, and what the kernel saw.

    `ways` is how often a way out was looked for and none was there; None where nobody may cut a process off.
    """

    done: subprocess.CompletedProcess[str]
    processes: int
    heard: list[str]
    ways: int | None
    home: Path


def can_be_alone() -> bool:
    return shutil.which(ALONE[0]) is not None and subprocess.run([*ALONE, "true"], check=False).returncode == 0


def watch(folder: Path, *words: str, **changes: str) -> Watched:
    """Run Python in a home of its own, cut off from every network where that can be done."""
    (folder / "watch").mkdir(parents=True)
    (folder / "home").mkdir()
    (folder / "watch" / "sitecustomize.py").write_text(WATCH, encoding="utf-8")
    search = os.pathsep.join([str(folder / "watch"), *filter(None, [os.environ.get("PYTHONPATH")])])
    own = {"PYTHONPATH": search, "HEARD": str(folder / "heard"), "HOME": str(folder / "home")}
    unset = {"HF_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", *privacy.SWITCHES, *CI_SERVICES}
    environment = {name: value for name, value in os.environ.items() if name not in unset} | own | changes
    script = f'"$@"; code=$?; cat /proc/net/snmp > "{folder}/ways"; exit $code'
    alone = ALONE if can_be_alone() else ()
    done = subprocess.run(
        [*alone, "sh", "-c", script, "sh", sys.executable, *words],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    heard = (folder / "heard").read_text(encoding="utf-8").splitlines()
    ways = ways_out((folder / "ways").read_text(encoding="utf-8")) if alone else None
    tried = [line for line in heard if line != "started"]
    return Watched(done, len(heard) - len(tried), tried, ways, folder / "home")


def ways_out(counters: str) -> int:
    """Packets that left or would have: whoever looks up a name or connects counts, be it Python or not."""
    names, values = (line.split()[1:] for line in counters.splitlines() if line.startswith("Ip: "))
    counted = dict(zip(names, map(int, values), strict=True))
    return counted["OutRequests"] + counted["OutNoRoutes"]


@pytest.fixture(scope="module")
def local_run(checkpoint, data_folder, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """A run on local files alone, timed in processes of its own, by a user who wants reports sent."""
    folder = tmp_path_factory.mktemp("local")
    few = ("--examples", "8", "--calibration-examples", "4", "--tuning-examples", "4", "--shapes", "1x16")
    own = ("--out", str(folder / "out"), "--cache", str(folder / "cache"), "--pipeline", "cpu-dynamic")
    words = ("run", "--model", str(checkpoint(HEAD)), "--data", str(data_folder(HEAD)), *few, *own)
    return watch(folder, "-c", FEW_RUNS, *words, HF_UPDATE_DOWNLOAD_COUNTS="1", ORT_DISABLE_TELEMETRY="0")


def test_a_local_run_asks_nothing_of_any_network_in_python(local_run: Watched) -> None:
    assert local_run.done.returncode in (0, 1, 4), local_run.done.stderr
    assert local_run.processes > 2  # itself, and those that time the models
    assert local_run.heard == []


def test_a_local_run_asks_nothing_of_any_network_below_python(local_run: Watched) -> None:
    if local_run.ways is None:
        pytest.skip("nobody may cut a process off from the network here")

    assert local_run.ways == 0


def test_a_local_run_leaves_nobody_an_identity_or_a_queue_of_reports(local_run: Watched) -> None:
    left = {str(path.relative_to(local_run.home)) for path in local_run.home.rglob("*") if path.is_file()}

    assert {path for path in left if "matplotlib" not in path} == set()


@pytest.mark.parametrize("who", ["python", "native code"])
def test_a_name_that_is_looked_up_is_seen(tmp_path: Path, who: str) -> None:
    seen = watch(tmp_path, "-c", TRIED, who)

    assert [line.split()[0] for line in seen.heard] == (["socket.getaddrinfo"] if who == "python" else [])
    if seen.ways is None:
        pytest.skip("nobody may cut a process off from the network here")
    assert seen.ways > 0


def test_the_switch_of_onnx_runtime_is_needed(tmp_path: Path) -> None:
    """Fails once ONNX Runtime (1.31) leaves the user's home alone by itself: then the switch can go."""
    loud = watch(tmp_path / "loud", "-c", WITHOUT_ORT_SWITCH)
    quiet = watch(tmp_path / "quiet", "-c", f"import optimize\n{WITHOUT_ORT_SWITCH}")

    assert (loud.done.returncode, quiet.done.returncode) == (0, 0), loud.done.stderr + quiet.done.stderr
    assert any(path.name == "onnxruntime.db" for path in loud.home.rglob("*"))
    assert list(quiet.home.rglob("*")) == []


@pytest.mark.parametrize(("name", "value"), privacy.SWITCHES.items())
def test_a_setting_that_asks_for_reports_is_overruled(monkeypatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, "0" if value == "1" else "1")

    privacy.report_nothing()

    assert os.environ[name] == value


def test_importing_the_package_is_enough_and_imports_no_library() -> None:
    code = "import optimize, os, sys; print(os.environ['ORT_DISABLE_TELEMETRY'], 'onnxruntime' in sys.modules)"
    environment = {name: value for name, value in os.environ.items() if name not in privacy.SWITCHES}

    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["1", "False"]


@pytest.mark.parametrize(("module", "name", "value"), privacy.READ_AT_IMPORT)
def test_what_was_imported_before_is_quiet_too(monkeypatch, module: str, name: str, value: bool) -> None:
    fake = types.SimpleNamespace(**{name: not value})
    monkeypatch.setitem(sys.modules, module, fake)

    privacy.report_nothing()

    assert getattr(fake, name) is value
