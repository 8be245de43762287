from __future__ import annotations

import math
from typing import Any

import pytest

from optimize.gates import Gates, judge
from optimize.manifest import Check, ClassF1, Drift, Latency, MacroF1, Measurement, Metric, Size


def class_f1(name: str, support: int, drop: float, *, error: float = 0.005) -> ClassF1:
    """The F1 of a class whose reference has 0.9."""
    interval = (drop - 2 * error, drop + 2 * error)
    return ClassF1(
        name=name, support=support, value=0.9 - drop, reference=0.9, drop=drop, interval=interval, standard_error=error
    )


MACRO = MacroF1(value=0.82, reference=0.85, drop=0.03, interval=(0.02, 0.04), standard_error=0.005)
CLASSES = [class_f1("joy", 900, 0.01), class_f1("fear", 80, 0.12), class_f1("awe", 7, 0.5)]


def metric(drop: float = 0.004, **changes: Any) -> Metric:
    values: dict[str, Any] = {
        "name": "accuracy",
        "value": 0.8 - drop,
        "reference": 0.8,
        "drop": drop,
        "relative_drop": drop / 0.8,
        "interval": (drop - 0.004, drop + 0.004),
        "confidence": 0.95,
        "standard_error": 0.002,
        "examples": 1000,
        "macro_f1": MACRO,
        "classes": CLASSES,
    }
    return Metric(**(values | changes))


LATENCY = Latency(
    shape="1x128",
    p50_ms=40.0,
    p90_ms=None,
    p99_ms=None,
    runs=20,
    speedup={"pytorch-fp32": 2.0, "cpu-fp32": 1.4},
    speedup_interval={"pytorch-fp32": (1.8, 2.2), "cpu-fp32": (1.3, 1.5)},
)
DISTANCES = {"max_abs": 0.1, "mean_abs": 0.01, "padding_max_abs": 0.0, "batch_max_abs": 0.0}
DRIFT = Drift(agreement=0.98, flips=20, decisions=1000, kl=0.01, cosine=None, compared=1000, **DISTANCES)


def measured(**changes: Any) -> Measurement:
    values: dict[str, Any] = {
        "name": "quantize_dynamic",
        "artifact_digest": "d",
        "metric": metric(),
        "drift": DRIFT,
        "latency": [LATENCY],
        "size": Size(bytes=250, ratio=0.25, by_component={}, by_dtype={}),
        "peak_memory_bytes": 1000,
    }
    return Measurement(**(values | changes))


def only(measurement: Measurement, **gates: Any) -> Check:
    verdict = judge(Gates(**gates), measurement)
    (check,) = verdict.checks
    assert verdict.outcome == check.outcome
    return check


ESTIMATE = {"rule": "estimate"}
LIMITS = [
    ("max_metric_drop", 0.005, 0.003, 0.004),
    ("max_relative_metric_drop", 0.006, 0.004, 0.005),
    ("min_agreement", 0.97, 0.99, 0.98),
    ("max_macro_f1_drop", 0.04, 0.02, 0.03),
    ("max_class_f1_drop", 0.2, 0.1, 0.12),
    ("min_speedup", 1.5, 2.5, 2.0),
    ("max_size_ratio", 0.3, 0.2, 0.25),
    ("max_memory_bytes", 1001, 999, 1000),
]


@pytest.mark.parametrize(("gate", "met", "missed", "value"), LIMITS)
def test_a_gate_passes_within_its_limit_and_fails_beyond(gate: str, met: float, missed: float, value: float) -> None:
    passed, failed = only(measured(), **ESTIMATE, **{gate: met}), only(measured(), **ESTIMATE, **{gate: missed})
    assert (passed.outcome, failed.outcome) == ("passed", "failed")
    assert (passed.name, passed.limit) == (gate, met)
    assert passed.value == pytest.approx(value)


@pytest.mark.parametrize(("gate", "met", "missed", "value"), LIMITS)
def test_a_value_that_is_exactly_the_limit_meets_it(gate: str, met: float, missed: float, value: float) -> None:
    assert only(measured(), **{gate: value}).outcome == "passed"


@pytest.mark.parametrize("gate", [limit[0] for limit in LIMITS if limit[0] != "max_size_ratio"])
def test_a_limit_without_its_measurement_never_passes(gate: str) -> None:
    nothing = measured(metric=None, drift=None, latency=[], peak_memory_bytes=None)
    check = only(nothing, **{gate: 1})
    assert (check.outcome, check.value) == ("unverified", None)
    assert check.reason.endswith("was not measured")


def test_a_missing_measurement_is_explained_by_its_recorded_reason() -> None:
    why = {"latency 1x1024": "longer than the model's 512 positions", "metric": "no labels"}
    bare = measured(metric=None, not_measured=why)
    assert only(bare, min_speedup=1.0, speedup_shape="1x1024").reason == "longer than the model's 512 positions"
    assert only(bare, max_metric_drop=0.1).reason == "no labels"


@pytest.mark.parametrize(
    ("gate", "broken"),
    [
        ("max_metric_drop", {"metric": metric(math.nan)}),
        ("max_relative_metric_drop", {"metric": metric(math.nan)}),
        ("max_size_ratio", {"size": Size(bytes=1, ratio=math.nan, by_component={}, by_dtype={})}),
    ],
)
def test_a_measurement_that_is_not_a_number_fails(gate: str, broken: dict[str, Any]) -> None:
    check = only(measured(**broken), **{gate: 1})
    assert (check.outcome, check.value) == ("failed", None)


def test_rounding_does_not_fail_a_drop_that_is_the_limit() -> None:
    assert only(measured(metric=metric(0.88 - 0.87)), max_metric_drop=0.01).outcome == "passed"


def test_the_speedup_is_looked_up_over_the_reference_that_the_gate_names() -> None:
    assert only(measured(), min_speedup=1.5, speedup_over="cpu-fp32").value == 1.4
    assert only(measured(), min_speedup=1.5, speedup_over="cuda-fp32").outcome == "unverified"


def test_no_share_can_be_judged_of_a_reference_that_scores_zero() -> None:
    zero = measured(metric=metric(reference=0.0, relative_drop=None))
    assert only(zero, max_relative_metric_drop=0.1).outcome == "unverified"


def test_old_limits_with_a_confidence_ask_for_proof() -> None:
    check = only(measured(), max_metric_drop=0.0073, confidence=0.95)  # 0.004 and 1.645 standard errors of 0.002
    assert check.outcome == "passed"
    assert "at 95 % it is at most 0.0073" in check.reason
    assert only(measured(), max_metric_drop=0.0072, confidence=0.95).outcome == "failed"
    assert only(measured(), max_metric_drop=0.0072, confidence=0.9).outcome == "passed"


def test_without_a_word_on_proof_a_limit_is_missed_where_that_is_proven() -> None:
    lost = measured(metric=metric(0.02))  # at least 0.0167
    failed, passed = only(lost, max_metric_drop=0.0167), only(lost, max_metric_drop=0.0168)
    assert (failed.outcome, failed.value) == ("failed", 0.02)
    assert failed.reason == "drop 0.0200 exceeds the limit of 0.0167; at 95 % it is at least 0.0167"
    assert (passed.outcome, passed.value) == ("passed", 0.02)
    assert (
        passed.reason == "drop 0.0200 exceeds the limit of 0.0168, but is not proven to: at 95 % it is at least 0.0167"
    )


def test_a_confidence_beside_a_rule_is_that_of_its_proofs() -> None:
    lost = measured(metric=metric(0.02))
    outcomes = [only(lost, max_metric_drop=0.016, rule="not_worse", confidence=level).outcome for level in (0.95, 0.99)]
    assert outcomes == ["failed", "passed"]


@pytest.mark.parametrize(
    ("rule", "limit", "outcome"),
    [
        ("estimate", 0.98, "passed"),
        ("estimate", 0.981, "failed"),
        ("not_worse", 0.986, "passed"),
        ("not_worse", 0.988, "failed"),
        ("proven", 0.971, "passed"),
        ("proven", 0.973, "failed"),
    ],
)
def test_agreement_is_held_at_the_end_of_its_binomial_interval(rule: str, limit: float, outcome: str) -> None:
    # 20 of 1,000 differ: from 0.9710 to 0.9867 (Clopper and Pearson, 95 % to each side)
    check = only(measured(), min_agreement=limit, rule=rule)
    assert (check.outcome, check.value) == (outcome, 0.98)


def test_agreement_of_an_order_is_no_surer_for_its_many_pairs() -> None:
    pairs = DRIFT.model_copy(update={"decisions": 499_500, "flips": 9_990})
    ordered = measured(drift=pairs, metric=metric(answers=1000))
    assert only(ordered, min_agreement=0.985, rule="not_worse").outcome == "passed"
    assert only(measured(drift=pairs), min_agreement=0.985, rule="not_worse").outcome == "failed"


def test_right_answers_are_counted_where_they_explain_the_drop() -> None:
    counted = measured(metric=metric(0.003, lost=3, gained=0, standard_error=1e-6))
    assert only(counted, max_metric_drop=0.001).outcome == "passed"  # three coins that fall alike
    other = measured(metric=metric(0.003, lost=30, gained=0, standard_error=1e-6))  # F1 beside exact match
    assert only(other, max_metric_drop=0.001).outcome == "failed"


def test_one_class_of_many_has_to_be_proven_worse_than_by_the_luck_of_many() -> None:
    lone = measured(metric=metric(classes=[class_f1("joy", 900, 0.06)]))  # 2 standard errors above 0.05
    many = [class_f1(f"class {n}", 900, 0.0) for n in range(9)]
    crowd = measured(metric=metric(classes=[class_f1("joy", 900, 0.06), *many]))
    assert only(lone, max_class_f1_drop=0.05, rule="not_worse").outcome == "failed"
    assert only(crowd, max_class_f1_drop=0.05, rule="not_worse").outcome == "passed"
    assert only(crowd, max_class_f1_drop=0.05, rule="estimate").outcome == "failed"


def test_a_drop_that_is_not_proven_fails_and_says_how_many_examples_would_prove_it() -> None:
    check = only(measured(metric=metric(standard_error=0.003)), max_metric_drop=0.0078, rule="proven")
    needed = 1000 * (1.644854 * 0.003 / 0.0038) ** 2
    assert check.outcome == "failed"
    assert f"about {float(f'{needed - 1000:.2g}'):,.0f} more examples would decide it" in check.reason
    assert "690 more" in check.reason


def test_a_relative_drop_is_proven_in_shares_of_the_reference() -> None:
    proven = only(measured(), max_relative_metric_drop=0.0092, confidence=0.95)
    open_ = only(measured(), max_relative_metric_drop=0.0091, confidence=0.95)
    assert (proven.outcome, open_.outcome) == ("passed", "failed")


def test_no_number_of_examples_decides_a_drop_that_is_the_limit() -> None:
    check = only(measured(), max_metric_drop=0.004, confidence=0.95)
    assert check.outcome == "failed"
    assert "no number of examples" in check.reason


def test_under_proof_a_speedup_counts_by_the_lower_end_of_its_interval() -> None:
    passed, failed = (only(measured(), min_speedup=limit, confidence=0.95) for limit in (1.8, 1.9))
    assert (passed.outcome, failed.outcome) == ("passed", "failed")
    assert "not proven" in failed.reason
    assert only(measured(), min_speedup=1.9, rule="not_worse", confidence=0.95).outcome == "passed"


def test_times_of_a_busy_machine_verify_no_speedup() -> None:
    busy = LATENCY.model_copy(update={"unreliable": "the machine was busy"})
    check = only(measured(latency=[busy]), min_speedup=1.5)
    assert (check.outcome, check.value) == ("unverified", None)
    assert check.reason == "latency at 1x128 is not reliable: the machine was busy; certify again on a quiet machine"


def test_without_limits_nothing_is_verified() -> None:
    verdict = judge(Gates(), measured())
    assert (verdict.outcome, verdict.checks) == ("unverified", [])


def test_one_failure_outweighs_what_is_unverified() -> None:
    gates = Gates(max_metric_drop=0.1, min_agreement=0.99, max_memory_bytes=1)
    verdict = judge(gates, measured(peak_memory_bytes=None))
    assert [check.outcome for check in verdict.checks] == ["passed", "failed", "unverified"]
    assert verdict.outcome == "failed"


def test_the_class_that_lost_most_is_named_and_those_that_are_too_rare_to_judge() -> None:
    check = only(measured(), max_class_f1_drop=0.1, **ESTIMATE)
    assert check.reason == (
        "drop of F1 of class 'fear' (80 right answers) 0.1200 exceeds the limit of 0.1; not judged, with fewer than 20 "
        "right answers: 'awe'"
    )


def test_a_lower_support_judges_rare_classes_too() -> None:
    verdict = judge(Gates(max_class_f1_drop=0.3, class_support=7), measured())
    assert [(check.name, check.outcome) for check in verdict.checks] == [
        ("max_class_f1_drop", "failed"),
        ("enough_examples_of_class", "unverified"),
    ]
    assert verdict.checks[0].value == 0.5


def test_no_class_that_is_common_enough_verifies_nothing() -> None:
    check = only(measured(metric=metric(classes=CLASSES[2:])), max_class_f1_drop=0.6)
    assert (check.outcome, check.value) == ("unverified", None)
    assert check.reason.startswith(
        "no class has as many right answers as class_support asks for; not judged, with fewer"
    )
    assert check.reason.endswith(": 'awe'")


def test_too_few_right_answers_of_a_class_prove_nothing_of_it() -> None:
    few = measured(metric=metric(classes=[class_f1("joy", 900, 0.0), class_f1("fear", 58, 0.0)]))
    verdict = judge(Gates(max_class_f1_drop=0.05), few)
    assert [check.outcome for check in verdict.checks] == ["passed", "unverified"]
    assert verdict.checks[1].reason.startswith(
        "58 examples of class 'fear' cannot prove a limit of 0.05; certify on data"
    )
    enough = measured(metric=metric(classes=[class_f1("fear", 59, 0.0)]))
    assert only(enough, max_class_f1_drop=0.05).outcome == "passed"
    assert judge(Gates(max_class_f1_drop=0.05, class_support=59), few).outcome == "passed"


@pytest.mark.parametrize("gate", ["max_macro_f1_drop", "max_class_f1_drop"])
def test_limits_on_classes_are_unverified_where_answers_are_none(gate: str) -> None:
    check = only(measured(metric=metric(name="spearman", macro_f1=None, classes=[])), **{gate: 0.5})
    assert (check.outcome, check.value) == ("unverified", None)
    assert check.reason == "F1 by class was not measured beside spearman, whose answers may be no classes"


def test_under_proof_each_class_has_to_be_proven() -> None:
    doubtful = measured(metric=metric(classes=[class_f1("joy", 900, 0.02), class_f1("fear", 80, 0.0, error=0.04)]))
    check = only(doubtful, max_class_f1_drop=0.05, rule="proven")
    assert check.outcome == "failed"
    assert "class 'fear' (80 right answers)" in check.reason
    assert "not proven at 95 %" in check.reason
    proven = only(doubtful, max_class_f1_drop=0.08, rule="proven")
    assert "at 95 % it is at most 0.0658" in proven.reason
    assert only(measured(), max_macro_f1_drop=0.035, rule="proven").outcome == "failed"
    assert only(measured(), max_macro_f1_drop=0.045, rule="proven").outcome == "passed"


def test_a_limit_on_macro_f1_alone_needs_enough_answers_too() -> None:
    few = measured(metric=metric(answers=200))
    checks = judge(Gates(max_macro_f1_drop=0.03), few).checks
    assert judge(Gates(max_macro_f1_drop=0.01), few).checks[-1].name == "enough_examples"
    assert [check.name for check in checks] == ["max_macro_f1_drop"]
