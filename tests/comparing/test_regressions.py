from __future__ import annotations

import json
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from comparing.cases import COUNT, FP32, INT8, MODELS, TIMES, classed, judged, metric_of, put, request, right_but
from report.conftest import DIGEST, ENVIRONMENT, STAGES

from optimize.ci.summary import summary
from optimize.compared import FILE, Regression, read_regression
from optimize.comparing.regressions import Tolerances, hold_against, regress
from optimize.errors import RequestError
from optimize.scores import Kept

CLEARLY_WORSE = right_but(range(120))
"""17 examples are lost and none is won: p = 0.5 ** 17."""
HARDLY_WORSE = right_but(range(106), 500)


def outcomes(found: Regression) -> dict[str, str]:
    return {each.name: each.outcome for each in found.changes}


def change(found: Regression, name: str):
    return next(each for each in found.changes if each.name == name)


def test_the_same_run_twice_is_no_regression():
    found = hold_against(judged("baseline"), judged())

    assert found.outcome == "passed"
    assert set(outcomes(found)) >= {"metric", "agreement", "size", "drift.kl", "latency.1x128"}
    assert change(found, "metric").p_value == 1.0
    assert change(found, "latency.1x128").loss == 0.0


def test_a_loss_that_chance_does_not_explain_is_named_with_its_stage():
    found = hold_against(judged("baseline"), judged(answers={"quantize_dynamic": CLEARLY_WORSE}))

    lost = change(found, "metric")
    assert (found.outcome, lost.outcome) == ("failed", "failed")
    assert lost.loss == pytest.approx(0.017)
    assert lost.p_value == pytest.approx(0.5**17)
    assert lost.blame.stage == "quantize_dynamic"
    assert lost.blame.change == pytest.approx(0.017)
    assert "17 were lost and 0 won" in lost.reason


def test_a_loss_that_may_be_chance_is_none():
    found = hold_against(judged("baseline"), judged(answers={"quantize_dynamic": HARDLY_WORSE}))

    assert change(found, "metric").loss > 0
    assert outcomes(found)["metric"] == "passed"


def test_a_gain_is_no_regression():
    worse = judged("baseline", answers={"quantize_dynamic": CLEARLY_WORSE})
    assert hold_against(worse, judged()).outcome == "passed"


def test_answers_that_flip_both_ways_lose_agreement_and_no_metric():
    flipped = INT8.copy()
    flipped[:20], flipped[500:520] = True, False
    found = hold_against(judged("baseline"), judged(answers={"quantize_dynamic": flipped}))

    assert (outcomes(found)["metric"], outcomes(found)["agreement"]) == ("passed", "failed")
    assert change(found, "agreement").loss == pytest.approx(0.04)


def test_two_tests_together_are_as_strict_as_one():
    """Five lost of five has p = 1/32: below 0.05 alone, and not as one of two."""
    found = hold_against(judged("baseline"), judged(answers={"quantize_dynamic": right_but(range(108))}))

    metric = change(found, "metric")
    assert metric.p_value == pytest.approx(1 / 32)
    assert metric.adjusted_p == pytest.approx(2 / 32)
    assert metric.outcome == "passed"


def test_the_level_of_the_tests_is_what_is_asked_for():
    """The same loss, of which both tests together are wrong one time in 16."""
    run = judged(answers={"quantize_dynamic": right_but(range(108))})
    found = hold_against(judged("baseline"), run, Tolerances(alpha=0.1))

    assert (change(found, "metric").outcome, change(found, "metric").allowed, found.alpha) == ("failed", 0.1, 0.1)


def test_a_worse_checkpoint_is_blamed_and_not_the_stages_after_it():
    worse = dict.fromkeys(("pytorch-fp32", "cpu-fp32", "export"), right_but(range(117)))
    found = hold_against(judged("baseline"), judged(answers={**worse, "quantize_dynamic": CLEARLY_WORSE}))

    assert change(found, "metric").blame.stage == "checkpoint"
    assert outcomes(found)["agreement"] == "passed"


def test_a_stage_that_the_baseline_has_not_is_blamed_for_what_came_about_there():
    export, last = STAGES
    fuse = {**export, "stage": "fuse", "params": {}}
    answers = {"fuse": right_but(range(118)), "quantize_dynamic": CLEARLY_WORSE}

    found = hold_against(judged("baseline"), judged(answers=answers, stages=[export, fuse, last]))

    assert change(found, "metric").blame.stage == "fuse"


def test_what_differs_of_the_blamed_stage_is_told():
    export, last = STAGES
    cruder = {**last, "params": {"per_channel": False}}
    run = judged(answers={"quantize_dynamic": CLEARLY_WORSE}, stages=[export, cruder])

    blame = change(hold_against(judged("baseline"), run), "metric").blame
    assert blame.settings == {"per_channel": "true → false"}


@pytest.mark.parametrize(("size", "outcome"), [(60_500_000, "passed"), (60_700_000, "failed"), (50_000_000, "passed")])
def test_size_is_held_to_its_tolerance(size, outcome):
    found = hold_against(judged("baseline"), judged(sizes={"quantize_dynamic": size}))

    assert outcomes(found)["size"] == outcome
    assert (change(found, "size").blame is not None) == (outcome == "failed")


def test_tolerances_are_what_is_asked_for():
    run = judged(sizes={"quantize_dynamic": 60_700_000})
    assert hold_against(judged("baseline"), run, Tolerances(size=0.02)).outcome == "passed"


@pytest.mark.parametrize(("kl", "outcome"), [(0.0012, "passed"), (0.0013, "failed"), (None, "unverified")])
def test_drift_is_held_to_its_tolerance(kl, outcome):
    run = judged()
    *others, last = run.record.measurements
    last = last.model_copy(update={"drift": last.drift.model_copy(update={"kl": kl})})
    record = run.record.model_copy(update={"measurements": [*others, last]})

    found = hold_against(judged("baseline"), type(run)(run.name, record, run.scores))

    assert outcomes(found)["drift.kl"] == outcome


@pytest.mark.parametrize(
    ("time", "outcome"), [(10.9, "passed"), (11.05, "unverified"), (15.0, "failed"), (5.0, "passed")]
)
def test_times_are_compared_beside_fp32(time, outcome):
    """FP32 takes 20 ms; each speed-up is known to 0.1, so that of 11.05 ms may be that of 10."""
    found = hold_against(judged("baseline"), judged(times={"quantize_dynamic": time}))

    assert found.environment == []
    assert outcomes(found)["latency.1x128"] == outcome
    assert change(found, "latency.1x128").value == pytest.approx(time / 20.0)
    assert "cpu-fp32" in change(found, "latency.1x128").reason


def test_the_stage_that_slows_a_model_is_named():
    found = hold_against(judged("baseline"), judged(times={"quantize_dynamic": 15.0}))
    slower = change(found, "latency.1x128")

    assert slower.loss == pytest.approx(0.5)
    assert slower.blame.stage == "quantize_dynamic"


@pytest.mark.parametrize("environment", [ENVIRONMENT, {**ENVIRONMENT, "cpu": "Another CPU"}])
def test_a_slower_machine_is_no_regression(environment):
    """Whether it is another one or the same on another day."""
    slower = {name: 3 * time for name, time in TIMES.items()}
    found = hold_against(judged("baseline"), judged(times=slower, environment=environment))

    assert found.environment == ([] if environment is ENVIRONMENT else ["cpu: Imagined CPU and Another CPU"])
    assert outcomes(found)["latency.1x128"] == "passed"
    assert change(found, "latency.1x128").loss == pytest.approx(0.0)


def test_a_larger_checkpoint_is_slower_though_it_gains_as_much():
    larger = judged(times={name: 1.5 * time for name, time in TIMES.items()}, sizes={"cpu-fp32": 300_000_000})
    slower = change(hold_against(judged("baseline"), larger), "latency.1x128")

    assert (slower.outcome, slower.baseline, slower.value) == ("failed", 10.0, 15.0)
    assert slower.blame.stage == "cpu-fp32"


def test_times_that_cannot_be_relied_on_are_not_passed():
    run = judged()
    *others, last = run.record.measurements
    busy = [each.model_copy(update={"unreliable": "busy"}) for each in last.latency]
    record = run.record.model_copy(update={"measurements": [*others, last.model_copy(update={"latency": busy})]})
    run = type(run)(run.name, record, run.scores)

    assert outcomes(hold_against(judged("baseline"), run))["latency.1x128"] == "unverified"
    assert hold_against(judged("baseline"), run, Tolerances(latency=None)).outcome == "passed"


OTHERS = {
    "head": ({"request": request(head="token-classification")}, "heads differ"),
    "data": ({"data": {"certification": {"count": 1000, "digest": "f" * 64, "origin": "test"}}}, "different data"),
}


@pytest.mark.parametrize("what", OTHERS)
def test_another_question_is_not_comparable_and_never_passed(what):
    changes, why = OTHERS[what]
    found = hold_against(judged("baseline"), judged(**changes))

    assert outcomes(found) == {"comparable": "unverified"}
    assert found.outcome == "unverified"
    assert why in found.changes[0].reason


def test_another_metric_is_not_comparable():
    run = metric_of(judged(), "f1", {}, 0.9)
    found = hold_against(judged("baseline"), run)
    assert "their metrics differ: accuracy and f1" in found.changes[0].reason


def test_decisions_that_were_not_recorded_are_not_passed():
    found = hold_against(judged("baseline", recorded=False), judged())

    assert (outcomes(found)["metric"], outcomes(found)["agreement"]) == ("passed", "unverified")
    assert "not recorded in baseline" in change(found, "agreement").reason


def test_a_metric_that_is_no_mean_is_tested_by_a_bootstrap():
    rng = np.random.default_rng(0)
    gold = rng.normal(size=COUNT)

    def run(name: str, noise: float):
        predicted = gold + rng.normal(size=COUNT) * noise
        kept = Kept(np.stack([predicted, gold], axis=1), None, predicted, ordinal=True)
        from optimize.heads._metrics import spearman

        reference = Kept(np.stack([gold, gold], axis=1), None, gold, ordinal=True)
        scores = {"quantize_dynamic": kept, "pytorch-fp32": reference}
        return metric_of(judged(name), "spearman", scores, spearman(kept.statistics))

    baseline, same, worse = run("baseline", 0.5), run("same", 0.5), run("worse", 0.7)

    assert outcomes(hold_against(baseline, worse))["metric"] == "failed"
    assert outcomes(hold_against(baseline, worse))["agreement"] == "failed"
    assert outcomes(hold_against(baseline, same))["metric"] == "passed"


ALL_RIGHT = np.repeat([0, 1, 2], [600, 380, 20])
FEAR_LOST = np.where(np.arange(COUNT) >= COUNT - 8, 0, ALL_RIGHT)
"""Eight of the 20 texts of a class, and of all 1,000 texts no more."""


def test_a_class_that_is_lost_is_named_with_its_stage():
    found = hold_against(classed("baseline", ALL_RIGHT), classed("run", FEAR_LOST))

    lost = change(found, "class_f1")
    assert (lost.baseline, lost.value) == (1.0, pytest.approx(2 * 12 / 32))
    assert "of class 'fear', the worst of 3, on 20 right answers" in lost.reason
    assert (lost.outcome, lost.blame.stage) == ("failed", "quantize_dynamic")
    assert lost.blame.change == pytest.approx(0.25)
    assert change(found, "macro_f1").outcome == "failed"
    assert lost.adjusted_p <= 4 * lost.p_value, "one test of four, however many classes there are"


def test_a_loss_of_a_class_that_may_be_chance_is_none():
    predicted = np.where(np.arange(COUNT) >= COUNT - 4, 0, ALL_RIGHT)
    found = hold_against(classed("baseline", ALL_RIGHT), classed("run", predicted))

    assert change(found, "class_f1").loss == pytest.approx(1 - 32 / 36)
    assert found.outcome == "passed"


def test_answers_that_are_no_classes_have_no_f1_of_classes():
    assert not {"macro_f1", "class_f1"} & set(outcomes(hold_against(judged("baseline"), judged())))


@pytest.mark.parametrize(
    ("baseline", "why"),
    [
        (classed("baseline", ALL_RIGHT, recorded=False), "was not recorded in baseline"),
        (judged("baseline", answers=dict.fromkeys(MODELS, ALL_RIGHT == ALL_RIGHT)), "was not measured in baseline"),
    ],
)
def test_a_baseline_without_f1_of_classes_is_not_passed(baseline, why):
    found = hold_against(baseline, classed("run", ALL_RIGHT))

    assert (outcomes(found)["metric"], outcomes(found)["macro_f1"]) == ("passed", "unverified")
    assert change(found, "macro_f1").reason.startswith("not comparable: ")
    assert why in change(found, "macro_f1").reason


def test_counts_that_are_not_the_manifests_are_refused():
    run, other = (classed("run", each).scores for each in (ALL_RIGHT, FEAR_LOST))
    mixed = {name: replace(kept, classes=other[name].classes) for name, kept in run.items()}
    spoilt = replace(classed("run", ALL_RIGHT), scores=mixed)

    with pytest.raises(RequestError, match=r"^run: its scores.npz is not of its manifest's F1 by class; certify"):
        hold_against(classed("baseline", ALL_RIGHT), spoilt)


def test_vectors_without_right_answers_say_that_they_cannot_be_compared():
    vectors = {"quantize_dynamic": Kept(np.eye(COUNT)[:, :4], None, FP32.astype(float), ordinal=True)}
    runs = [metric_of(judged(name), "cosine_to_reference", vectors, 0.99) for name in ("baseline", "run")]

    metric = change(hold_against(*runs), "metric")
    assert metric.outcome == "unverified"
    assert "its own reference" in metric.reason


def test_the_record_lies_in_the_run_and_its_report_tells_of_it(tmp_path):
    put(tmp_path / "accepted" / "mine", judged())
    worse = judged(answers={"quantize_dynamic": CLEARLY_WORSE}, created="2026-02-03T00:00:00+00:00")
    run = put(tmp_path / "run", worse)

    found = regress(run, tmp_path / "accepted", name="mine")

    content = json.loads((run / FILE).read_text(encoding="utf-8"))
    assert (content["schema"], content["outcome"], content["baseline"]["data"]) == (1, "failed", DIGEST)
    assert read_regression(run, worse.record) == found
    page = (run / "report.md").read_text(encoding="utf-8")
    assert "## Since the last accepted run" in page
    assert "| metric | 0.897 | 0.88 | +0.0170 | failed | quantize_dynamic (+0.0170) |" in page


def test_a_record_of_what_was_measured_before_is_not_shown(tmp_path):
    put(tmp_path / "accepted" / "mine", judged())
    run = put(tmp_path / "run", judged())
    regress(run, tmp_path / "accepted", name="mine")

    later = judged(created="2026-03-04T00:00:00+00:00").record
    assert read_regression(run, later) is None


def test_services_are_told_what_got_worse(optimize, tmp_path, monkeypatch, capsys):
    put(tmp_path / "accepted" / "mine", judged())
    run = put(tmp_path / "run", judged(answers={"quantize_dynamic": CLEARLY_WORSE}))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    words = ("--baselines", str(tmp_path / "accepted"), "--name", "mine", "--junit", str(tmp_path / "regress.xml"))

    assert optimize("regress", str(run), *words) == 1

    said = capsys.readouterr()
    assert "::error title=metric failed::text-classification on cpu, cpu, regression: accuracy" in said.err
    assert "::" not in said.out
    assert "### Since the last accepted run" in (tmp_path / "summary.md").read_text(encoding="utf-8")
    (suite,) = ElementTree.parse(tmp_path / "regress.xml").getroot()
    assert suite.get("name") == "text-classification/cpu/cpu/regression"
    (failure,) = next(case for case in suite if case.get("name") == "metric")
    assert "most of it at quantize_dynamic (+0.0170)" in failure.get("message")


def test_a_place_for_junit_that_cannot_be_is_refused_before_anything_is_compared(optimize, tmp_path, capsys):
    put(tmp_path / "accepted" / "mine", judged())
    run = put(tmp_path / "run", judged())

    words = ("--baselines", str(tmp_path / "accepted"), "--name", "mine", "--junit", str(tmp_path))

    assert optimize("regress", str(run), *words) == 2
    assert "--junit: " in capsys.readouterr().err
    assert not (run / FILE).exists()


def test_the_comment_tells_of_it(tmp_path):
    put(tmp_path / "accepted" / "mine", judged())
    worse = judged(answers={"quantize_dynamic": CLEARLY_WORSE})
    found = regress(put(tmp_path / "run", worse), tmp_path / "accepted", name="mine")

    text = summary(worse.record, found)

    assert text.index("### Since the last accepted run") < text.index("| model |")
    assert "| metric | 0.897 | 0.88 | +0.0170 | failed |" in text
    assert "**Something got worse since the last accepted run: metric" in text.split("\n\n")[1]
    assert "last accepted run" not in summary(worse.record)
