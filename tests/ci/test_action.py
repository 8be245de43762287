"""What GitHub, GitLab and pre-commit demand of their files, and the shell of the action beside a stand-in."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from ci.action import ACTION, EXPRESSION, ROOT, STEPS, Job, inputs, name_of

from optimize.cli.commands import app

CONTEXTS = ("inputs.", "steps.", "runner.os", "runner.arch", "runner.temp", "github.")
STAND_IN = """#!/bin/sh
printf '%s\\n' "$@" >> "$HEARD"; echo --- >> "$HEARD"
case $1 in
  run)
    while [ "$1" != --out ]; do shift; done
    [ "$RUN_CODE" = 2 ] || { mkdir -p "$2/one"; echo '{}' > "$2/one/manifest.json"; }
    exit "$RUN_CODE" ;;
  regress) exit "${REGRESS_CODE:-0}" ;;
esac
"""


def git(folder: Path, *words: str) -> None:
    subprocess.run(["git", "-c", "user.name=x", "-c", "user.email=x@y", *words], cwd=folder, check=True)


@pytest.fixture
def job(tmp_path: Path):
    """A job in a clone whose base branch has baselines, with a stand-in for `optimize` that writes down its words."""
    origin, work, temp = (tmp_path / name for name in ("origin", "work", "temp"))
    (origin / "baselines").mkdir(parents=True)
    (origin / "baselines" / "x.json").write_text("base", encoding="utf-8")
    git(origin, "init", "--quiet", "--initial-branch", "main")
    git(origin, "add", ".")
    git(origin, "commit", "--quiet", "-m", "x")
    git(tmp_path, "clone", "--quiet", str(origin), str(work))
    temp.mkdir()

    def make(
        code: int = 0, regress: int = 0, base: str = "", known: dict[str, str] | None = None, **changed: str
    ) -> Job:
        expressions = {
            **inputs(**changed),
            "runner.temp": str(temp),
            "github.action_path": str(ROOT),
            "github.repository": "someone/models",
            "github.base_ref": base,
            "inputs.token": "ghs_x",
            **(known or {}),
        }
        environment = {
            **os.environ,
            "HEARD": str(tmp_path / "heard"),
            "RUN_CODE": str(code),
            "REGRESS_CODE": str(regress),
        }
        return Job(work, expressions, environment)

    return make


def carry_out(job: Job) -> int:
    """All steps but the installation, in place of which there is the stand-in."""
    first = Job(job.folder, job.known, job.environment)
    assert first.run(without=tuple({name_of(step) for step in STEPS} - {"places"})) == 0
    programs = Path(job.known["steps.places.outputs.place"]) / "venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "optimize").write_text(STAND_IN, encoding="utf-8")
    (programs / "optimize").chmod(0o755)
    (programs / "python").symlink_to(sys.executable)
    return job.run(without=("places", "install"))


def heard(job: Job) -> list[list[str]]:
    text = Path(job.environment["HEARD"]).read_text(encoding="utf-8")
    return [call.split("\n")[:-1] for call in text.split("---\n")[:-1]]


def test_the_action_has_what_github_demands():
    assert ACTION.keys() == {"name", "description", "inputs", "outputs", "runs"}
    assert ACTION["runs"]["using"] == "composite"
    for name, each in ACTION["inputs"].items():
        assert each.keys() == {"description", "default"}, name
        assert isinstance(each["default"], str), name
    assert all(each.keys() == {"description", "value"} for each in ACTION["outputs"].values())
    for step in STEPS:
        assert step.keys() <= {"id", "if", "shell", "env", "run", "uses", "with"}
        assert ("run" in step) == ("uses" not in step)
        assert ("shell" in step) == ("run" in step)
        assert re.fullmatch(r"actions/[a-z-]+@v\d+", step.get("uses", "actions/x@v1"))


def test_an_expression_never_stands_in_a_script_and_names_what_is_there():
    ids = {step["id"] for step in STEPS if "id" in step}
    for step in STEPS:
        assert "${{" not in step.get("run", "")
    for name in EXPRESSION.findall((ROOT / "action.yml").read_text(encoding="utf-8")):
        assert name.startswith(CONTEXTS), name
        kind, _, rest = name.partition(".")
        assert kind != "inputs" or rest in ACTION["inputs"], name
        assert kind != "steps" or rest.partition(".")[0] in ids, name
    outputs = re.findall(r'echo "(\w+)=', "".join(step.get("run", "") for step in STEPS))
    assert set(re.findall(r"outputs\.(\w+)", (ROOT / "action.yml").read_text(encoding="utf-8"))) <= set(outputs)


def test_every_option_that_the_action_gives_to_run_is_one():
    script = next(step["run"] for step in STEPS if step.get("id") == "run").partition('optimize" cache gc')[0]
    words = set(re.findall(r"(?<![\w-])--[a-z-]+", script))
    run = typer.main.get_command(app).commands["run"]
    assert words - {name for each in run.params for name in each.opts} == set()
    assert len(words) > 5


def test_inputs_become_words_that_no_shell_reads(job, tmp_path):
    made = job(model="a b; touch x", head="$(touch x)", args="--set 'export.opset=1 7' --seed \"1\"", comment="false")

    assert carry_out(made) == 0

    run, gc = heard(made)
    assert run[:3] == ["run", "--model", "a b; touch x"]
    assert run[run.index("--head") + 1] == "$(touch x)"
    assert run[-4:] == ["--set", "export.opset=1 7", "--seed", "1"]
    assert {"--data", "--target", "--pipeline"} & set(run) == set()
    assert gc[:2] == ["cache", "gc"]
    assert not (made.folder / "x").exists()


@pytest.mark.parametrize(
    ("code", "regress", "changed", "ends"),
    [
        (0, 0, {}, 0),
        (1, 0, {}, 1),
        (4, 0, {}, 4),
        (4, 0, {"accept_unverified": "true"}, 0),
        (1, 0, {"accept_unverified": "true"}, 1),
        (3, 0, {}, 3),
        (2, 0, {}, 2),
        (0, 1, {}, 1),
        (0, 4, {}, 4),
        (4, 1, {}, 1),
        (0, 4, {"accept_unverified": "true"}, 0),
        (0, 2, {}, 2),
        (130, 0, {}, 130),
    ],
)
def test_the_job_ends_with_the_worst_code(code, regress, changed, ends, job):
    assert carry_out(job(code, regress, baselines="baselines", comment="false", **changed)) == ends


def test_arguments_that_are_no_words_end_the_step(job):
    assert carry_out(job(args="--seed 'open")) != 0


def test_a_pull_request_is_held_against_its_base_branchs_baselines(job, tmp_path):
    made = job(baselines="baselines", base="main", comment="false")
    (made.folder / "baselines" / "x.json").write_text("made easier", encoding="utf-8")

    assert carry_out(made) == 0

    regress = heard(made)[-1]
    assert regress[0] == "regress"
    assert (Path(regress[-1]) / "x.json").read_text(encoding="utf-8") == "base"
    assert Path(regress[1], "manifest.json").is_file()
    assert regress[2:4] == ["--junit", str(Path(regress[1], "regression.xml"))]


def test_without_a_pull_request_it_is_held_against_the_folder_itself(job):
    made = job(baselines="baselines", comment="false")

    assert carry_out(made) == 0
    assert heard(made)[-1][-2:] == ["--baselines", "baselines"]


@pytest.mark.parametrize("base", ["", "main"])
def test_where_no_baselines_are_nothing_is_compared_and_that_is_said(base, job):
    made = job(baselines="elsewhere", base=base, comment="false")

    assert carry_out(made) == 0
    assert "::notice title=no baselines::elsewhere is not there" in made.said
    assert "regress" not in [call[0] for call in heard(made)]


@pytest.mark.parametrize(
    ("repository", "comment", "commented"),
    [
        ("someone/models", "true", True),
        ("someone/models", "false", False),
        ("fork/models", "true", False),
        ("", "true", False),
    ],
)
def test_only_pull_requests_of_the_repository_itself_are_commented_on(repository, comment, commented, job):
    known = {"github.event.pull_request.number": "7", "github.event.pull_request.head.repo.full_name": repository}
    made = job(comment=comment, known=known)

    assert carry_out(made) == 0

    calls = [call for call in heard(made) if call[0] == "comment"]
    assert [call[2:] for call in calls] == [["--pull-request", "7"]] * commented


def test_a_request_that_is_refused_ends_at_once(job):
    made = job(2, known={"github.event.pull_request.head.repo.full_name": "someone/models"})

    assert carry_out(made) == 2
    assert [call[0] for call in heard(made)] == ["run", "cache"]


def test_the_component_has_what_gitlab_demands():
    spec, jobs = yaml.safe_load_all((ROOT / "docs/ci/templates/optimize.yml").read_text(encoding="utf-8"))
    text = (ROOT / "docs/ci/templates/optimize.yml").read_text(encoding="utf-8")
    assert spec.keys() == {"spec"}
    assert all({"default", "description"} == each.keys() for each in spec["spec"]["inputs"].values())
    assert set(re.findall(r"\$\[\[ inputs\.(\w+) ]]", text)) == spec["spec"]["inputs"].keys()
    ((name, made),) = jobs.items()
    assert name == "$[[ inputs.name ]]"
    assert made.keys() == {"stage", "image", "variables", "cache", "script", "artifacts"}
    assert all(isinstance(line, str) for line in made["script"])
    junit = made["artifacts"]["reports"]["junit"]
    assert f"--junit {junit} " in made["script"][-1]
    assert made["artifacts"]["when"] == "always"


def test_the_component_hands_words_on(tmp_path):
    _, jobs = yaml.safe_load_all((ROOT / "docs/ci/templates/optimize.yml").read_text(encoding="utf-8"))
    (made,) = jobs.values()
    script = "\n".join(made["script"]).replace("$[[ inputs.args ]]", "--set 'export.opset=1 7'")
    stand_in = 'pip() { printf "%s|" pip "$@"; echo; }; optimize() { printf "%s|" "$@"; echo; }\n'
    known = {**os.environ, "INSTALL": "x[cpu]", "MODEL": "a b", "DATA": "c d", "PIPELINE": "p"}

    done = subprocess.run(["sh", "-ec", stand_in + script], env=known, capture_output=True, text=True, check=True)

    pip, run = done.stdout.splitlines()
    assert pip == "pip|install|--quiet|x[cpu]|"
    assert run.startswith("run|--model|a b|--pipeline|p|")
    assert "|--data|c d|--junit|" in run
    assert run.endswith("|--set|export.opset=1 7|")


def test_the_hook_has_what_pre_commit_demands_and_plans(monkeypatch, optimize, capsys):
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    assert hook.keys() >= {"id", "name", "entry", "language"}
    assert (hook["language"], hook["pass_filenames"]) == ("python", False)
    assert re.search(hook["files"], "pipelines/mine.yaml")
    program, *words = hook["entry"].split()
    assert program == "optimize"

    assert optimize(*words, "--pipeline", "cpu-dynamic") == 0
    assert optimize(*words, "--pipeline", "cpu-dynamik") == 2
    assert "did you mean 'cpu-dynamic'?" in capsys.readouterr().err


def guide_blocks() -> list[dict[str, Any]]:
    text = (ROOT / "docs" / "guide" / "ci.md").read_text(encoding="utf-8")
    return [yaml.safe_load(block) for block in re.findall(r"```yml\n(.*?)```", text, re.DOTALL)]


def test_the_guide_uses_inputs_hooks_and_components_that_are_there(optimize):
    workflow, component, hooks = guide_blocks()
    _, action = workflow["jobs"]["optimize"]["steps"]
    assert action["with"].keys() <= ACTION["inputs"].keys()
    assert workflow["permissions"]["pull-requests"] == "write"
    (include,) = component["include"]
    spec, _ = yaml.safe_load_all((ROOT / "docs/ci/templates/optimize.yml").read_text(encoding="utf-8"))
    assert include["inputs"].keys() <= spec["spec"]["inputs"].keys()
    (asked,) = hooks["repos"][0]["hooks"]
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    assert asked["id"] == hook["id"]
    assert optimize("plan", *asked["args"]) == 2  # its words are known, and its pipeline is the reader's own
