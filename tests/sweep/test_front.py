"""Which points no other beats, which one is chosen, and which one is picked."""

import pytest
from sweep.swept_cases import swept, trial

from optimize.errors import RequestError
from optimize.sweep.front import Wanted, chosen_of, front_of, pick, with_front

SLOW, FAST = trial("slow", drop=0.0, speed=2.0, size=0.4), trial("fast", drop=0.005, speed=4.0, size=0.2)
BEATEN = trial("beaten", drop=0.006, speed=3.9, size=0.2)
SMALL = trial("small", drop=0.008, speed=3.0, size=0.1)
WORSE = trial("worse", drop=0.04, speed=6.0, size=0.05)
ALL = (SLOW, FAST, BEATEN, SMALL, WORSE)


def names(trials):
    return [each.id for each in trials]


def test_the_front_holds_what_no_other_beats_in_all_three():
    assert names(front_of(ALL)) == ["slow", "fast", "small", "worse"]


def test_equal_points_are_both_on_the_front():
    assert names(front_of([FAST, FAST.model_copy(update={"id": "twin"})])) == ["fast", "twin"]


def test_what_was_not_timed_is_beaten_by_what_was_and_loses_no_more():
    assert names(front_of([trial("untimed", speed=None, size=0.4), SLOW])) == ["slow"]


@pytest.mark.parametrize("other", [{"model": "n"}, {"target": "openvino"}, {"environment": "there"}])
def test_points_of_other_models_targets_and_machines_are_not_compared(other):
    marked = with_front([FAST, BEATEN.model_copy(update=other)])
    assert [each.on_front for each in marked] == [True, True]


def test_what_failed_is_on_no_front():
    failed = trial("failed", outcome="failed", tuning=None, speedup=None)
    assert [each.on_front for each in with_front([failed])] == [False]


@pytest.mark.parametrize(("prefer", "name"), [("latency", "fast"), ("size", "small"), ("accuracy", "slow")])
def test_the_chosen_one_meets_all_limits_and_is_best_by_what_is_preferred(prefer, name):
    assert chosen_of(ALL, prefer).id == name


def test_nothing_is_chosen_of_nothing():
    assert chosen_of([trial("failed", outcome="failed", tuning=None)], "latency") is None


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        (Wanted(), "worse"),
        (Wanted(max_drop=0.01), "fast"),
        (Wanted(max_drop=0.01, prefer="size"), "small"),
        (Wanted(max_drop=0.01, max_size=0.15), "small"),
        (Wanted(min_speedup=3.95, prefer="accuracy"), "fast"),
        (Wanted(max_drop=0.0), "slow"),
    ],
)
def test_the_picked_one_is_the_best_that_is_as_wanted(wanted, name):
    assert pick(swept(*ALL), wanted).id == name


def test_where_none_is_as_wanted_the_nearest_is_named():
    with pytest.raises(RequestError, match=r"^many: no point is as wanted; the nearest, fast, loses 0.50 %|0.50%"):
        pick(swept(*ALL), Wanted(max_drop=0.001, min_speedup=3.0, max_size=0.3))


def test_points_of_several_models_have_to_be_told_apart():
    two = swept(FAST, SLOW.model_copy(update={"model": "n"}))
    with pytest.raises(RequestError, match=r"several models \(m, n\); name one with --model"):
        pick(two, Wanted())
    assert pick(two, Wanted(model="n")).id == "slow"


def test_times_of_unlike_machines_are_not_compared():
    two = swept(FAST, SLOW.model_copy(update={"environment": "there", "target": "openvino"}))
    with pytest.raises(RequestError, match="several environments"):
        pick(two, Wanted())
    assert pick(two, Wanted(target="openvino")).id == "slow"


def test_a_model_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(RequestError, match="it has m on cpu"):
        pick(swept(FAST), Wanted(model="n"))
