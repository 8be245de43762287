"""What a head fixes on tuning data: once, with the reference before any stage, and for all splits and models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from optimize import building
from optimize.certifying import certify
from optimize.heads import HEADS
from optimize.planning import Options, Plan, make_plan
from optimize.running import run

HEAD = "question-answering"


@pytest.fixture
def plan(checkpoint, data_folder, tmp_path: Path):
    """A plan on the small data set, of which every third question is robbed of its answers."""

    def make(*, unanswerable: bool, **options: Any) -> Plan:
        for path in data_folder(HEAD).glob("*.jsonl"):
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            for row in rows[::3] if unanswerable else ():
                row["answers"] = {"text": [], "answer_start": []}
            (tmp_path / path.name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return make_plan(
            Options(
                model=str(checkpoint(HEAD)),
                data=str(tmp_path),
                cache=tmp_path / "cache",
                examples=40,
                calibration_examples=8,
                tuning_examples=24,
                **options,
            )
        )

    return make


def test_a_threshold_is_fixed_once_and_reaches_all_data(plan, silent) -> None:
    loaded = building.load(plan(unanswerable=True), silent)

    fixed = loaded.thresholds
    assert list(fixed) == ["no_answer"]
    for encoded in (loaded.certification, loaded.tuning, loaded.context.calibration, loaded.tuning.first(examples=3)):
        assert encoded.thresholds == fixed
    assert building.fit_thresholds(loaded) == fixed
    kept = building.load_data(loaded.plan, loaded.origin, silent, thresholds={"no_answer": 3.0})
    assert kept.certification.thresholds == {"no_answer": 3.0}


@pytest.mark.slow
def test_certify_judges_with_the_threshold_of_the_manifest(plan, silent, few_runs, tmp_path: Path) -> None:
    out, cache = tmp_path / "runs", tmp_path / "cache"
    folder, built = run(plan(unanswerable=True, pipeline="cpu-dynamic", build_only=True, out=out), progress=silent)
    content = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    never = {"no_answer": 1e6}
    (folder / "manifest.json").write_text(json.dumps({**content, "thresholds": never}), encoding="utf-8")

    _, certified = certify(folder, model=None, data=None, cache=cache, progress=silent)

    assert list(built.thresholds) == ["no_answer"]
    assert (built.thresholds != never, certified.thresholds) == (True, never)
    for measurement in certified.measurements:
        assert measurement.metric is not None
        assert measurement.metric.others["no_answer_f1"] == 0.0
    assert "The threshold `no_answer`" in (folder / "report.md").read_text(encoding="utf-8")


def test_data_that_need_none_have_none(plan, silent) -> None:
    loaded = building.load(plan(unanswerable=False), silent)

    assert (loaded.thresholds, loaded.certification.thresholds) == ({}, {})


def test_only_heads_that_say_so_fix_anything() -> None:
    assert [name for name, head in HEADS.items() if head.fit] == [HEAD]
