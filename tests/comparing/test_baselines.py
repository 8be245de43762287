"""Acceptance of real runs, which have a model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from doubles import FEW_RUNS, Silent

import optimize
from optimize import compared, manifest, running
from optimize.certifying import certify
from optimize.comparing.baselines import accept, baseline_name
from optimize.comparing.regressions import Tolerances
from optimize.errors import RequestError
from optimize.scores import FILE, Kept, read_scores, write_kept

HEAD = "token-classification"


@pytest.fixture
def copy(passed_run, tmp_path) -> Path:
    return Path(shutil.copytree(passed_run, tmp_path / "run"))


@pytest.fixture
def rewrite(copy) -> Callable[..., Path]:
    """Write parts of the run's manifest anew."""

    def make(**changes: object) -> Path:
        manifest.write(manifest.read(copy).model_copy(update=changes), copy)
        return copy

    return make


def test_a_baseline_is_small_and_goes_by_its_question(passed_run, tmp_path):
    place = accept(passed_run, tmp_path / "accepted")

    assert place.name == f"checkpoint.{HEAD}.cpu.mine" == baseline_name(manifest.read(passed_run))
    assert {path.name for path in place.iterdir()} == {manifest.FILE, FILE}
    assert (place / manifest.FILE).read_bytes() == (passed_run / manifest.FILE).read_bytes()
    assert [path.name for path in (tmp_path / "accepted").iterdir()] == [place.name]
    scores = read_scores(place)
    assert {"pytorch-fp32", "cpu-fp32", "export", "quantize_dynamic"} == set(scores)
    assert all(kept.decisions is not None for kept in scores.values())
    counts = scores["quantize_dynamic"].classes
    metric = manifest.read(passed_run).measurements[-1].metric
    assert counts[..., 2].sum(axis=0).tolist() == [each.support for each in metric.classes]
    assert counts.dtype == np.uint8


def test_the_same_question_takes_the_place_of_its_baseline(copy, rewrite, tmp_path):
    accept(copy, tmp_path / "accepted")
    place = accept(rewrite(id="0" * 8), tmp_path / "accepted")

    assert manifest.read(place).id == "0" * 8
    assert [path.name for path in (tmp_path / "accepted").iterdir()] == [place.name]


def test_the_baseline_of_another_question_is_not_replaced(copy, rewrite, tmp_path):
    source = manifest.read(copy).source
    accept(copy, tmp_path / "accepted", name="mine")
    other = rewrite(source=source.model_copy(update={"id": "elsewhere/other"}))

    with pytest.raises(RequestError, match=r"is the baseline of checkpoint, .*, and the run is of other, "):
        accept(other, tmp_path / "accepted", name="mine")
    assert {each.name for each in accept(other, tmp_path / "accepted").parent.iterdir()} == {
        "mine",
        f"other.{HEAD}.cpu.mine",
    }


def test_what_is_no_baseline_is_not_replaced(passed_run, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it", encoding="utf-8")

    with pytest.raises(RequestError, match="is no baseline"):
        accept(passed_run, tmp_path, name="mine")
    assert (tmp_path / "mine" / "thesis.txt").exists()


@pytest.mark.parametrize("name", ["../x", ".hidden", "a/b", "x" * 201])
def test_a_name_that_is_none_is_refused(passed_run, tmp_path, name):
    with pytest.raises(RequestError, match="--name: "):
        accept(passed_run, tmp_path, name=name)


def test_a_run_that_did_not_pass_is_accepted_only_if_that_is_said(copy, rewrite, tmp_path):
    record = manifest.read(copy)
    (check,) = record.verdict.checks
    failing = rewrite(
        request=record.request.__class__(**{**vars(record.request), "gates": {"max_size_ratio": 0.01}}),
        verdict=record.verdict.model_copy(
            update={
                "outcome": "failed",
                "checks": [check.model_copy(update={"limit": 0.01, "outcome": "failed"})],
            }
        ),
    )
    with pytest.raises(RequestError, match="its verdict is failed"):
        accept(failing, tmp_path / "accepted")
    assert accept(failing, tmp_path / "accepted", any_verdict=True).is_dir()


@pytest.mark.parametrize("any_verdict", [False, True])
def test_a_run_that_claims_what_was_not_measured_is_refused(copy, rewrite, tmp_path, any_verdict):
    verdict = manifest.read(copy).verdict
    outcome = "failed" if any_verdict else "passed"
    claimed = rewrite(verdict=verdict.model_copy(update={"outcome": outcome, "checks": []}))

    with pytest.raises(RequestError, match="check 'max_size_ratio' is missing"):
        accept(claimed, tmp_path / "accepted", any_verdict=any_verdict)


def test_another_model_than_was_judged_is_refused(copy, tmp_path):
    (copy / "model" / "added.txt").write_text("x", encoding="utf-8")
    with pytest.raises(RequestError, match="is not what the manifest says"):
        accept(copy, tmp_path / "accepted")


@pytest.mark.parametrize("counts", [np.zeros((40, 2)), np.zeros((40, 2, 2), np.uint8), np.zeros((40, 2, 3))])
def test_counts_of_classes_that_are_none_are_refused(counts, copy, tmp_path):
    write_kept({"quantize_dynamic": Kept(classes=counts)}, copy)
    with pytest.raises(RequestError, match=r"scores.npz: cannot be read \(its classes are no table of counts\)"):
        accept(copy, tmp_path / "accepted")


def test_a_run_without_scores_is_refused(copy, tmp_path):
    (copy / FILE).unlink()
    with pytest.raises(RequestError, match=r"scores.npz: is not there"):
        accept(copy, tmp_path / "accepted")


def test_the_same_run_passes_and_one_with_fewer_right_answers_does_not(copy, optimize, tmp_path, capsys):
    words = ("--baselines", str(tmp_path / "accepted"), "--no-latency")
    assert optimize("accept", str(copy), *words[:2]) == 0
    assert optimize("regress", str(copy), *words) == 0
    capsys.readouterr()

    scores = read_scores(copy)
    record = manifest.read(copy)
    kept = scores["quantize_dynamic"]
    statistics = kept.statistics * np.array([0.5, 1.0, 1.0])
    f1 = 2 * statistics[:, 0].sum() / statistics[:, 1:].sum()
    write_kept({**scores, "quantize_dynamic": Kept(statistics, kept.right & False, kept.decisions)}, copy)
    *others, last = record.measurements
    last = last.model_copy(update={"metric": last.metric.model_copy(update={"value": float(f1)})})
    manifest.write(record.model_copy(update={"measurements": [*others, last]}), copy)

    assert optimize("regress", str(copy), *words, "--json") == 1
    found = json.loads(capsys.readouterr().out)
    worse = {each["name"]: each["blame"]["stage"] for each in found["changes"] if each["outcome"] == "failed"}
    assert worse == {"metric": "quantize_dynamic"}
    assert optimize("regress", str(copy), *words) == 1
    assert "most of it at quantize_dynamic" in " ".join(capsys.readouterr().out.split())


def test_a_run_that_is_measured_anew_loses_what_was_compared_before(copy, monkeypatch, tmp_path):
    monkeypatch.setattr(running, "Settings", FEW_RUNS)
    (copy / compared.FILE).write_text("{}", encoding="utf-8")

    certify(copy, model=None, data=None, cache=tmp_path / "cache", progress=Silent())

    assert not (copy / compared.FILE).exists()


def test_a_run_without_a_baseline_is_told_what_there_is(passed_run, optimize, tmp_path, capsys):
    assert optimize("regress", str(passed_run), "--baselines", str(tmp_path)) == 2
    assert "there are none" in capsys.readouterr().err


@pytest.mark.parametrize("tolerance", ["nan", "-1%", "inf", "some"])
def test_a_tolerance_that_nothing_could_exceed_is_refused(passed_run, optimize, tolerance, capsys):
    assert optimize("regress", str(passed_run), "--size-tolerance", tolerance) == 2
    assert "--size-tolerance" in capsys.readouterr().err


@pytest.mark.parametrize("alpha", ["0", "1", "nan", "-5%"])
def test_a_level_at_which_nothing_or_everything_is_proven_is_refused(passed_run, optimize, alpha, capsys):
    assert optimize("regress", str(passed_run), "--alpha", alpha) == 2
    assert "--alpha" in capsys.readouterr().err


def test_a_publication_is_not_written_to(copy, optimize, capsys):
    (copy / "SHA256SUMS").write_text("", encoding="utf-8")
    assert optimize("regress", str(copy)) == 2
    assert "is a publication" in capsys.readouterr().err


def test_a_program_accepts_compares_and_holds_against_it(passed_run, copy, tmp_path):
    place = optimize.accept(str(passed_run), str(tmp_path / "accepted"), name="mine")

    found = optimize.regress(copy, tmp_path / "accepted", name="mine", tolerances=Tolerances(latency=None))
    both = optimize.compare(str(passed_run), copy)

    assert place == tmp_path / "accepted" / "mine"
    assert (found.outcome, (copy / compared.FILE).exists()) == ("passed", True)
    assert [each.name for each in both.runs] == [passed_run.name, copy.name]
    assert both.pairs[0].answers.difference == 0.0
