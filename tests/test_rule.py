"""The rule: which end of an interval it goes by, and how often it is wrong where the truth is known."""

import math
from typing import get_args

import numpy as np
import pytest

from optimize.manifest import Metric
from optimize.rule import (
    Estimate,
    Rule,
    agreement,
    around,
    binomial_ends,
    drop_of,
    for_a_search,
    held,
    missed,
    paired_ends,
)

FOUND = Estimate(0.02, 0.01, 0.03)
TRIALS = 4000
LIMIT = 0.01


@pytest.mark.parametrize(
    ("rule", "name", "end"),
    [
        ("estimate", "max_metric_drop", 0.02),
        ("not_worse", "max_metric_drop", 0.01),
        ("proven", "max_metric_drop", 0.03),
        ("estimate", "min_agreement", 0.02),
        ("not_worse", "min_agreement", 0.03),
        ("proven", "min_agreement", 0.01),
    ],
)
def test_a_rule_goes_by_one_end(rule, name, end):
    assert held(rule, name, FOUND) == end
    assert missed(rule, name, end, FOUND) == 0.0
    near_miss = end + (0.001 if name.startswith("min_") else -0.001)
    assert missed(rule, name, near_miss, FOUND) == pytest.approx(0.001)


@pytest.mark.parametrize(("rule", "limit"), [("estimate", 0.02), ("not_worse", 0.02), ("proven", 0.03)])
def test_one_of_many_has_to_have_the_estimate_within_at_least(rule, limit):
    assert missed(for_a_search(rule), "max_metric_drop", limit, FOUND) == 0.0
    assert missed(for_a_search(rule), "max_metric_drop", limit - 0.001, FOUND) > 0.0


@pytest.mark.parametrize("rule", get_args(Rule))
def test_what_is_not_a_number_misses_every_limit(rule):
    assert missed(rule, "max_metric_drop", 1.0, around(math.nan, math.nan, confidence=0.95)) == math.inf


def drawn(examples, drop, gained, seed=0):
    """Ends of many drops, of models that differ where one of them alone is right; `drop` in truth."""
    shares = [gained + drop, gained, 1.0 - 2.0 * gained - drop]
    lost, won, _ = np.random.default_rng(seed).multinomial(examples, shares, size=TRIALS).T
    return Estimate((lost - won) / examples, *paired_ends(lost, won, examples, confidence=0.95))


@pytest.mark.parametrize("examples", [400, 3000])
@pytest.mark.parametrize("gained", [0.0, 0.005, 0.05])
@pytest.mark.parametrize("drop", [0.0, 0.005, 0.02])
def test_an_end_is_beyond_the_truth_in_one_of_twenty_at_most(examples, gained, drop):
    found = drawn(examples, drop, gained)
    assert (found.lower > drop + 1e-12).mean() < 0.06
    assert (found.upper < drop - 1e-12).mean() < 0.06


def test_models_that_are_equally_good_fail_by_estimate_alone():
    # Half of 10 % that differ each way: of 886 examples, a standard error of 1.06 points.
    found = drawn(886, 0.0, 0.05)
    failed = {rule: (held(rule, "max_metric_drop", found) > 0.0052).mean() for rule in get_args(Rule)}
    assert failed["not_worse"] < 0.05 < 0.25 < failed["estimate"] < 0.4
    assert failed["proven"] > 0.8


def test_a_drop_of_two_points_fails_on_three_thousand_examples():
    failed = {rule: (held(rule, "max_metric_drop", drawn(3000, 0.02, 0.002)) > LIMIT).mean() for rule in get_args(Rule)}
    assert 0.95 < failed["not_worse"] < failed["estimate"]
    assert failed["proven"] == 1.0


def test_a_drop_that_is_the_limit_is_seldom_proven_beyond_it():
    found = drawn(3000, LIMIT, 0.02)
    assert (held("not_worse", "max_metric_drop", found) > LIMIT).mean() < 0.06
    assert 0.4 < (held("estimate", "max_metric_drop", found) > LIMIT).mean() < 0.6


def test_a_few_answers_lost_and_none_gained_prove_no_more_than_coins():
    for lost, proven in (
        (4, False),
        (5, True),
    ):  # all of four coins fall alike in one of 16 throws, of five in one of 32
        lower, _ = paired_ends(lost, 0, 10_000, confidence=0.95)
        assert (lower > 0) is np.bool_(proven)


def test_where_answers_change_one_way_ends_are_the_binomial_ones():
    _, most = paired_ends(0, 0, 300, confidence=0.95)
    assert most == pytest.approx(1.0 - 0.05 ** (1 / 300))
    lower, _ = paired_ends(9, 0, 886, confidence=0.95)
    assert lower == pytest.approx(float(binomial_ends(9, 886, error=0.05)[0]))


def test_what_is_lost_and_what_is_gained_are_mirrored():
    lower, upper = paired_ends(40, 12, 1000, confidence=0.9)
    assert paired_ends(12, 40, 1000, confidence=0.9) == (-upper, -lower)
    assert lower < 0.028 < upper


def test_ends_are_wider_the_surer_they_are():
    ends = [paired_ends(40, 12, 1000, confidence=level) for level in (0.8, 0.95, 0.99)]
    assert sorted((float(lower) for lower, _ in ends), reverse=True) == [float(lower) for lower, _ in ends]
    assert sorted(float(upper) for _, upper in ends) == [float(upper) for _, upper in ends]


def test_a_share_of_right_answers_is_counted_and_any_other_score_goes_by_its_error():
    values = {"name": "accuracy", "value": 0.8, "reference": 0.828, "drop": 0.028, "relative_drop": 0.028 / 0.828}
    values |= {"interval": (0.0, 0.1), "confidence": 0.95, "standard_error": 0.01, "examples": 1000}
    ends = paired_ends(40, 12, 1000, confidence=0.95)
    counted = Metric(**values, lost=40, gained=12)
    assert drop_of(counted, confidence=0.95)[1:] == pytest.approx([float(end) for end in ends])
    halved = drop_of(counted, confidence=0.95, unit=2.0)
    assert halved == pytest.approx([each / 2 for each in drop_of(counted, confidence=0.95)])
    for other in (Metric(**values), Metric(**values, lost=41, gained=12)):
        assert drop_of(other, confidence=0.95) == around(0.028, 0.01, confidence=0.95)


def test_agreement_is_binomial_and_all_of_it_still_leaves_doubt():
    assert agreement(1.0, 300, confidence=0.95) == pytest.approx((1.0, 0.05 ** (1 / 300), 1.0))
    assert agreement(0.0, 300, confidence=0.95)[:2] == (0.0, 0.0)
    found = agreement(0.9, 200, confidence=0.95)
    assert found.lower == pytest.approx(0.8581, abs=1e-3)
    assert found.upper == pytest.approx(0.9327, abs=1e-3)


def test_agreement_below_its_limit_in_truth_is_found_and_above_it_is_left_alone():
    rng = np.random.default_rng(1)
    for truth, least, most in ((0.95, 0.0, 0.06), (0.97, 0.0, 0.001), (0.93, 0.95, 1.0)):
        shares = 1.0 - rng.binomial(3000, 1.0 - truth, 500) / 3000
        found = [missed("not_worse", "min_agreement", 0.95, agreement(each, 3000, confidence=0.95)) for each in shares]
        assert least <= (np.array(found) > 0).mean() <= most
