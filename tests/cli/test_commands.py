from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest
import typer.main
from report.conftest import make_manifest

import optimize as package
from optimize import certifying, planning, running, targets
from optimize.cli import commands
from optimize.cli.options import options_from
from optimize.errors import RequestError, SourceError, StageError, UnavailableError
from optimize.heads import HEADS
from optimize.machine import environment
from optimize.request import Options, Request, declared

ROOT = Path(package.__file__).parents[1]
HEAVY = {"torch", "transformers", "onnx", "onnxruntime", "optimum", "datasets", "sklearn", "scipy"}


@pytest.fixture
def verdicts(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let runs end with these verdicts, one after the other, without doing anything."""

    def prepare(*outcomes: str) -> None:
        left = iter([make_manifest(verdict={"outcome": outcome, "checks": []}) for outcome in outcomes])
        monkeypatch.setattr(planning, "make_plan", lambda options, progress: options)
        monkeypatch.setattr(running, "run", lambda made, progress: (Path("run"), next(left)))

    return prepare


def imported(*words: str) -> set[str]:
    """Top-level modules, and modules of ours, that a command imports in a fresh process."""
    code = (
        "import sys\nfrom optimize.cli.commands import main\n"
        "try:\n    main()\nexcept SystemExit as stopped:\n    assert not stopped.code, stopped.code\n"
        "print('\\n'.join(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, check=True, capture_output=True, text=True)
    return set(done.stderr.split())


def test_help_imports_nothing_heavy():
    modules = imported("--help")

    assert "optimize.cli" in modules
    assert modules & {*HEAVY, "numpy", "yaml", "optimize.manifest", "optimize.planning", "optimize.running"} == set()


@pytest.mark.parametrize("words", [("list",), ("plan", "--model", "demo"), ("doctor",)])
def test_what_only_looks_imports_no_framework(words):
    assert imported(*words) & HEAVY == set()


def test_the_package_runs_as_a_module():
    words = [sys.executable, "-m", "optimize", "--help"]

    done = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True)

    assert "Usage: optimize" in done.stdout
    assert [
        name for name in ("run", "plan", "list", "doctor", "certify", "publish", "bench") if name not in done.stdout
    ] == []


@pytest.mark.parametrize("name", ["run", "plan"])
def test_every_option_of_a_request_has_a_flag_with_the_same_default(name):
    parameters = {each.name: each for each in typer.main.get_command(commands.app).commands[name].params}
    values = {name: parameter.default for name, parameter in parameters.items()}

    assert parameters.keys() - declared().keys() == {"as_json", "verbose", "quiet"}
    assert options_from(values) == Options()
    assert [parameters[name].opts[0] for name in declared()] == [each.flag for each in declared().values()]
    assert [parameters[name].rich_help_panel for name in declared()] == [
        each.option.panel for each in declared().values()
    ]


def test_no_two_options_of_a_command_share_a_flag():
    for name, command in typer.main.get_command(commands.app).commands.items():
        flags = [flag for each in command.params for flag in (*each.opts, *each.secondary_opts)]
        assert len(set(flags)) == len(flags), name


@pytest.mark.parametrize("words", [(), ("cache",)])
def test_without_a_command_there_is_help(words, optimize, capsys):
    code = optimize(*words)

    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: {' '.join(['optimize', *words])} [OPTIONS] COMMAND")


def test_run_comes_first(optimize, capsys):
    optimize("-h")

    shown = capsys.readouterr().out.partition("Commands:")[2].split()
    assert shown[0] == "run"
    assert "check" not in shown


@pytest.mark.parametrize("flag", ["-V", "--version"])
def test_the_version_is_shown(flag, optimize, capsys):
    assert optimize(flag) == 0
    assert capsys.readouterr().out == f"optimize {package.__version__}\n"


@pytest.mark.parametrize("width", [80, 120])
def test_help_is_in_panels_and_keeps_to_the_terminal(width, optimize, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))

    assert optimize("run", "-h") == 0

    lines = capsys.readouterr().out.splitlines()
    panels = [line.removesuffix(":") for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert panels == ["Model", "Data", "Pipeline", "Measurement", "Output", "Options"]
    assert width - 20 < max(map(len, lines)) <= width


def test_the_shell_completes_commands_and_names():
    def complete(words: str) -> str:
        count = str(len(words.split()) - (not words.endswith(" ")))
        asked = {"_OPTIMIZE_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": count}
        done = subprocess.run(
            [sys.executable, "-c", "from optimize.cli.commands import main; main()"],
            cwd=ROOT, env={**os.environ, **asked}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.stdout

    assert "certify" in complete("optimize cer")
    assert complete("optimize run --pipeline cpu-st").split() == ["cpu-static"]
    assert complete("optimize show quantize_st").split() == ["quantize_static"]


def test_list_names_heads_stages_and_pipelines(optimize, capsys):
    code = optimize("list")

    out = capsys.readouterr().out
    assert code == 0
    assert [name for name in (*HEADS, "quantize_dynamic", "cpu-fused") if name not in out] == []


def test_doctor_describes_this_machine(optimize, capsys):
    code = optimize("doctor")

    out = capsys.readouterr().out
    assert code == 0
    assert environment.version("onnxruntime") in out


def test_doctor_exits_with_3_where_no_target_runs(optimize, capsys, monkeypatch):
    for name, target in targets.TARGETS.items():
        monkeypatch.setitem(
            targets.TARGETS, name, replace(target, unavailable=lambda _: "onnxruntime is not installed")
        )

    code = optimize("doctor")

    assert code == 3
    assert "onnxruntime is not installed" in capsys.readouterr().out


def test_plan_shows_what_would_be_done_and_does_nothing(optimize, capsys, tmp_path):
    code = optimize("plan", "--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "out"))

    out = capsys.readouterr().out
    assert code == 0
    assert [
        word for word in ("stage 1", "export", "stage 2", "quantize_static", "min_agreement") if word not in out
    ] == []
    assert list(tmp_path.iterdir()) == []


def test_plan_as_json_is_the_request_of_the_manifest(optimize, capsys):
    code = optimize("plan", "--head", "fill-mask", "--shapes", "1x16, 2x8", "--seed", "5", "--json")

    request = json.loads(capsys.readouterr().out)
    assert code == 0
    assert set(request) == {field.name for field in fields(Request)}
    assert (request["head"], request["shapes"], request["seed"]) == ("fill-mask", ["1x16", "2x8", "1x128"], 5)


def test_run_as_json_prints_the_manifest_alone(optimize, capfd, checkpoint, data_folder, tmp_path):
    head = "text-classification"
    words = ["--model", str(checkpoint(head)), "--data", str(data_folder(head)), "--build-only", "--json"]
    words += ["--calibration-examples", "8", "--tuning-examples", "8"]

    code = optimize("run", *words, "--out", str(tmp_path / "runs"), "--cache", str(tmp_path / "cache"))

    out = capfd.readouterr().out
    (folder,) = (tmp_path / "runs").iterdir()
    assert code == 4
    assert out == (folder / "manifest.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        (["passed"], 0),
        (["failed"], 1),
        (["unverified"], 4),
        (["passed", "unverified", "passed"], 4),
        (["unverified", "failed", "passed"], 1),
    ],
)
def test_the_worst_verdict_is_the_exit_code(outcomes, code, optimize, verdicts, monkeypatch, capsys):
    verdicts(*outcomes)
    monkeypatch.setattr(commands, "each_head", lambda options: [options] * len(outcomes))

    assert optimize("run") == code
    assert ("all heads" in capsys.readouterr().out) == (len(outcomes) > 1)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RequestError("here: wrong;\n  mend it"), 2),
        (SourceError("here: wrong; mend it"), 2),
        (UnavailableError("here: wrong; mend it"), 3),
        (StageError("here: wrong; mend it"), 3),
        (OSError(28, "here", "wrong; mend it"), 3),
        (KeyboardInterrupt(), 130),
    ],
)
def test_an_error_is_one_line_on_stderr_and_its_exit_code(error, code, optimize, monkeypatch, capsys):
    def refuse(_: Options, **__: object) -> None:
        raise error

    monkeypatch.setattr(planning, "make_plan", refuse)

    assert optimize("run") == code
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("optimize: ")
    assert ("wrong; mend it" in err) == (code != 130)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["run", "--heat", "x"], "--heat"),
        (["fly"], "fly"),
        (["certify"], "RUN"),
        (["plan", "--head", "fill-mist"], "did you mean 'fill-mask'?"),
        (["plan", "--pipeline", "cpu-fusd"], "did you mean 'cpu-fused'?"),
        (["plan", "--target", "gpu"], "unknown name 'gpu'"),
        (["plan", "--shapes", "1by16"], "write BATCHxTOKENS"),
        (["plan", "--columns", "text"], "role=column"),
        (["plan", "--examples", "many"], "--examples"),
        (["plan", "--examples", "0"], "--examples: 0 is too few"),
        (["plan", "--model", "./nowhere"], "no such folder"),
    ],
)
def test_a_bad_request_exits_with_2_and_one_line(words, hint, optimize, capsys):
    code = optimize(*words)

    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert hint in err


def test_all_heads_are_one_request_each():
    options = Options(head="all", seed=3)

    each = commands.each_head(options)

    assert [one.head for one in each] == list(HEADS)
    assert all(replace(one, head="all") == options for one in each)


@pytest.mark.parametrize("head", [None, "fill-mask"])
def test_one_head_is_one_request(head):
    assert commands.each_head(Options(head=head)) == [Options(head=head)]


def test_all_heads_of_one_checkpoint_are_refused():
    with pytest.raises(RequestError, match="a checkpoint has one head"):
        commands.each_head(Options(head="all", model="someone/model"))


def test_all_requests_are_checked_before_the_first_is_run(optimize, monkeypatch, capsys):
    def refuse_the_last(options: Options, **_: object) -> Options:
        if options.head == list(HEADS)[-1]:
            raise RequestError("last: refused; mend it")
        return options

    monkeypatch.setattr(planning, "make_plan", refuse_the_last)
    monkeypatch.setattr(running, "run", lambda *_, **__: pytest.fail("ran before all were checked"))

    assert optimize("run", "--head", "all") == 2


def test_several_runs_as_json_are_one_array(optimize, verdicts, monkeypatch, capsys):
    verdicts("passed", "failed")
    monkeypatch.setattr(commands, "each_head", lambda options: [options] * 2)

    assert optimize("run", "--json") == 1

    found = json.loads(capsys.readouterr().out)
    assert [manifest["verdict"]["outcome"] for manifest in found] == ["passed", "failed"]


def test_shapes_that_name_none_are_refused(optimize, capsys):
    assert optimize("plan", "--shapes", " , ") == 2
    assert "--shapes: names no shape" in capsys.readouterr().err


def test_check_is_certify_and_says_so(optimize, monkeypatch, capsys):
    monkeypatch.setattr(certifying, "certify", lambda folder, **_: (folder, make_manifest()))

    assert optimize("check", "run") == 0

    out, err = capsys.readouterr()
    assert "'check' is called 'certify' now" in err
    assert "passed  run/report.html" in out


def test_a_quiet_run_prints_its_verdict_alone(optimize, verdicts, capsys):
    verdicts("failed")

    assert optimize("run", "-q") == 1
    assert tuple(capsys.readouterr()) == ("failed  run/report.html\n", "")


def test_a_quiet_refusal_is_still_shown(optimize, capsys):
    assert optimize("plan", "-q", "--target", "gpu") == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_verbose_refusal_shows_where_it_comes_from(optimize, capsys):
    assert optimize("plan", "-v", "--target", "gpu") == 2

    *trace, line = capsys.readouterr().err.splitlines()
    assert trace[0] == "Traceback (most recent call last):"
    assert line.startswith("optimize: target: unknown name 'gpu'")


@pytest.mark.parametrize("words", [("list",), ("doctor",), ("show", "cpu"), ("plan",)])
def test_what_is_shown_can_be_had_as_json(words, optimize, capsys):
    assert optimize(*words, "--json") == 0

    out, err = capsys.readouterr()
    assert json.loads(out)
    assert err == ""
