from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from ci.test_junit import MIXED, check, judged

from optimize.ci.findings import limits_of
from optimize.ci.github import add_to_summary, is_github, workflow_commands
from optimize.ci.summary import summary
from optimize.cli import finishing
from optimize.cli.commands import main
from optimize.report.page import command

PASSED = judged("passed", check("a", "passed"))


@pytest.fixture
def finish(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """End a command with these runs; the exit code."""

    def call(*manifests, **options) -> int:
        with pytest.raises(finishing.typer.Exit) as ended:
            finishing.finish([(Path("run"), each) for each in manifests], **{"junit": None, "track": None, **options})
        return ended.value.exit_code

    return call


def test_what_is_not_met_is_an_error_and_what_is_not_verified_a_warning():
    assert list(workflow_commands(limits_of(MIXED))) == [
        "::error title=b failed::text-classification on cpu, cpu: too slow",
        "::warning title=c unverified::text-classification on cpu, cpu: busy",
    ]


def test_a_passed_run_has_no_annotation():
    assert list(workflow_commands(limits_of(PASSED))) == []


def test_what_would_end_a_command_or_begin_another_is_escaped():
    hostile = judged("failed", check("a,b: c%", "failed", "1 %\r\n::set-output name=x::y"))

    assert list(workflow_commands(limits_of(hostile))) == [
        "::error title=a%2Cb%3A c%25 failed::text-classification on cpu, cpu: 1 %25%0D%0A::set-output name=x::y"
    ]


@pytest.mark.parametrize(
    ("environment", "found"), [({"GITHUB_ACTIONS": "true"}, True), ({"GITHUB_ACTIONS": ""}, False), ({}, False)]
)
def test_github_is_known_by_its_environment(environment, found):
    assert is_github(environment) == found


def test_a_summary_says_verdict_limits_models_and_how_to_reproduce():
    text = summary(MIXED)

    assert text.startswith("### text-classification on cpu: someone/distilbert-sst2\n\n**FAILED**")
    assert "| b | 1 | – | failed | too slow |" in text
    assert "| quantize_dynamic | 0.8950 |" in text
    assert command(MIXED.request) in text
    assert len(text) < 4000


def test_a_run_that_was_only_built_has_a_summary_without_models():
    text = summary(judged("unverified", measurements=[]))

    assert "No limit was checked." in text
    assert "| model |" not in text


def test_summaries_are_added_and_none_is_written_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "summary.md").write_text("before\n", encoding="utf-8")
    for manifest in (MIXED, PASSED):
        add_to_summary(summary(manifest), {"GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md")})
    add_to_summary(summary(MIXED), {"GITHUB_STEP_SUMMARY": ""})
    add_to_summary(summary(MIXED), {})

    assert (tmp_path / "summary.md").read_text(encoding="utf-8") == f"before\n{summary(MIXED)}\n{summary(PASSED)}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["summary.md"]


def test_annotations_go_to_standard_error_alone(finish, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))

    assert finish(PASSED, MIXED) == 1

    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == list(workflow_commands(limits_of(MIXED)))
    assert (
        re.findall(r"^### .*", (tmp_path / "summary.md").read_text(encoding="utf-8"), re.MULTILINE)
        == ["### text-classification on cpu: someone/distilbert-sst2"] * 2
    )


def test_elsewhere_nothing_is_said(finish, capsys):
    assert finish(PASSED) == 0
    assert capsys.readouterr() == ("", "")


def test_a_summary_that_cannot_be_written_ends_with_a_line_and_code_3(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    monkeypatch.setattr("optimize.planning.make_plan", lambda options, progress: options)
    monkeypatch.setattr("optimize.running.run", lambda made, progress: (Path("run"), PASSED))
    monkeypatch.setattr("sys.argv", ["optimize", "run", "--quiet"])

    with pytest.raises(SystemExit) as ended:
        main()

    assert ended.value.code == 3
    out, err = capsys.readouterr()
    assert out.startswith("passed")
    assert err.startswith(f"optimize: {tmp_path}: ")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(("outcomes", "code"), [("pp", 0), ("pu", 4), ("uf", 1), ("fp", 1)])
def test_the_worst_verdict_is_the_exit_code(outcomes, code, finish):
    words = {"p": "passed", "u": "unverified", "f": "failed"}
    assert finish(*(judged(words[each]) for each in outcomes)) == code


def test_junit_is_written_for_all_runs(finish, tmp_path):
    assert finish(PASSED, MIXED, junit=tmp_path / "x.xml") == 1
    assert (tmp_path / "x.xml").read_bytes().count(b"<testsuite ") == 2
