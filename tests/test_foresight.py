"""What a plan says of the data before they are read."""

import math

import pytest

from optimize.foresight import examples_to_tell, foresee, smallest_told
from optimize.gates import Gates


def test_without_a_limit_on_the_metric_there_is_nothing_to_decide():
    assert foresee(Gates(min_agreement=0.9, max_size_ratio=0.3), 1000) is None


def test_a_plan_says_which_drop_fails_and_how_many_examples_would_decide():
    said = foresee(Gates(max_relative_metric_drop=0.01, min_agreement=0.9), 886)
    told = 2 * 1.644854 * math.sqrt(0.1 / 886)
    assert said == (
        f"with 886 examples a drop of {0.008 + told:.4f} fails in 95 of 100 runs (limit 0.008), if 90% of answers stay "
        "and FP32 scores 0.8; with --examples 16,910 twice the limit fails as often"
    )


def test_enough_examples_are_asked_for_no_more():
    needed = examples_to_tell("not_worse", 0.95, 0.01, 0.95)
    gates = Gates(max_metric_drop=0.01)
    assert "--examples" in foresee(gates, needed - 1)
    assert "--examples" not in foresee(gates, needed)
    assert "FP32 scores" not in foresee(gates, needed)


def test_under_proof_it_is_what_passes_that_counts():
    gates = Gates(max_metric_drop=0.01, min_agreement=0.98, rule="proven")
    few, many = foresee(gates, 1000), foresee(gates, 100_000)
    assert "a model that lost nothing passes less often than in 95 of 100 runs" in few
    assert few.endswith("what lost nothing passes as often")
    assert f"a drop of {0.01 - smallest_told('proven', 0.98, 100_000, 0.95):.4f} passes in 95 of 100 runs" in many


@pytest.mark.parametrize("rule", ["estimate", "not_worse", "proven"])
def test_a_limit_of_nothing_is_decided_by_no_number_of_examples(rule):
    assert "--examples" not in foresee(Gates(max_metric_drop=0.0, rule=rule), 1000)


def test_an_estimate_tells_smaller_drops_apart_than_a_proof():
    assert smallest_told("estimate", 0.9, 1000, 0.95) == pytest.approx(smallest_told("proven", 0.9, 1000, 0.95) / 2)
