"""The action as GitHub would run it: installed from this tree, on the demo, with GitHub's API on this machine."""

from __future__ import annotations

import os
from pathlib import Path
from xml.etree import ElementTree

import pytest
from ci.action import ROOT, Job, inputs
from ci.github_server import NUMBER, REPOSITORY, TOKEN, serve

from optimize import manifest

pytestmark = [pytest.mark.environments, pytest.mark.timeout(1800)]  # environments are installed
FEW = "--build-only --examples 40 --calibration-examples 16 --tuning-examples 16 --seed 1"


def test_a_pull_request_is_told_and_the_job_ends_with_the_verdict(tmp_path):
    work, temp = tmp_path / "work", tmp_path / "temp"
    work.mkdir()
    temp.mkdir()
    summary = tmp_path / "summary.md"
    known = {
        **inputs(pipeline="cpu-dynamic", args=FEW, extras="cpu", token=TOKEN),
        "runner.temp": str(temp),
        "github.action_path": str(ROOT),
        "github.repository": REPOSITORY,
        "github.event.pull_request.number": str(NUMBER),
        "github.event.pull_request.head.repo.full_name": REPOSITORY,
    }
    with serve() as github:
        mine = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        places = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary), "HOME": str(tmp_path)}
        job = Job(work, known, {**mine, **places, **github.environment})

        assert job.run() == 4, job.said  # only built, so not verified
        assert job.done == ["places", "install", "run", "comment", "exit"]

    (run,) = (path.parent for path in (temp.glob("optimize-*/runs/*/manifest.json")))
    assert run.parent == Path(job.known["steps.run.outputs.runs"])
    assert manifest.read(run).verdict.outcome == "unverified"
    (suite,) = ElementTree.parse(job.known["steps.run.outputs.junit"]).getroot()
    assert suite.get("name") == "text-classification/cpu/cpu-dynamic"
    assert "::warning title=verdict unverified::text-classification on cpu, cpu-dynamic: it was only built" in job.said
    (comment,) = github.comments.values()
    assert summary.read_text(encoding="utf-8").strip() == comment.partition("\n")[2].strip()
    assert list(work.iterdir()) == [work / ".output"]
