"""What a search tries next: down while there is hope, then time where it pays, and never more than is left."""

import pytest

from optimize.config import Search
from optimize.search.course import EXPONENT, Move, Rung, Try, expected, finalists, measured_exponent, next_move

SEARCH = Search(minutes=30, probe_minutes=2, budgets=(0.5, 0.3, 0.2))


def rung(budget, *strains, minutes=2.0):
    """A budget with tries of these strains, each after twice the time of the one before."""
    return Rung(budget, tuple(Try(minutes * 2**place, strain, strain / 100) for place, strain in enumerate(strains)))


def test_it_begins_with_the_largest_budget():
    assert next_move([], 30, SEARCH) == Move(0.5, 2)


def test_it_goes_down_while_the_limits_are_met():
    assert next_move([rung(0.5, 0.4)], 20, SEARCH) == Move(0.3, 2)


def test_it_goes_down_from_what_more_time_is_expected_to_bring_within_them():
    assert next_move([rung(0.5, 1.2)], 20, SEARCH) == Move(0.3, 2)


def test_from_what_no_time_brings_within_them_it_does_not_go_down():
    move = next_move([rung(0.5, 0.5), rung(0.3, 9.0)], 20, SEARCH)
    assert move == Move(0.5, pytest.approx(12))


def test_the_smallest_budget_of_which_it_can_be_expected_gets_most_of_the_time():
    move = next_move([rung(0.5, 0.2), rung(0.3, 0.5), rung(0.2, 1.3)], 20, SEARCH)
    assert move == Move(0.2, pytest.approx(12))


def test_where_that_fails_the_next_larger_one_gets_the_rest():
    failed = Rung(0.2, (Try(2, 1.3, 0.02), Try(14, 1.29, 0.0199)))
    move = next_move([rung(0.5, 0.2), rung(0.3, 0.5), failed], 8, SEARCH)
    assert move == Move(0.3, pytest.approx(4.8))


def test_what_is_too_little_to_share_goes_to_one():
    assert next_move([rung(0.3, 0.5)], 3, Search(minutes=30, probe_minutes=2, budgets=(0.3,))) == Move(0.3, 3)


def test_with_less_time_than_a_probe_takes_it_ends():
    assert next_move([rung(0.5, 0.4)], 1.9, SEARCH) is None


def test_it_ends_where_the_smallest_has_learnt_its_share_and_nothing_smaller_has_hope():
    learnt = Rung(0.3, (Try(2, 1.1, 0.02), Try(14, 0.8, 0.015)))
    assert next_move([learnt, rung(0.2, 9.0)], 8, SEARCH) is None


def test_it_ends_where_nothing_has_hope():
    assert next_move([rung(0.5, 50.0)], 20, SEARCH) is None


def test_budgets_that_cannot_be_built_are_not_tried():
    assert next_move([rung(0.5, 0.1)], 20, SEARCH, lowest=0.3) == Move(0.5, pytest.approx(12))


def test_what_failed_once_is_not_tried_again():
    assert next_move([rung(0.5, 1.1)], 20, SEARCH, lowest=0.5) is None


def test_errors_fall_by_the_power_of_time():
    assert expected(rung(0.5, 2.0), 6, 0.5) == pytest.approx(1.0)


def test_the_exponent_is_measured_where_a_budget_learnt_twice():
    assert measured_exponent([rung(0.5, 1.0)]) == EXPONENT
    assert measured_exponent([rung(0.5, 2.0, 1.0)]) == pytest.approx(1.0)
    assert measured_exponent([rung(0.5, 1.0, 2.0)]) == 0.0


def test_the_smallest_within_the_limits_are_quantized():
    rungs = [rung(0.5, 0.1), rung(0.3, 0.9), rung(0.2, 1.1)]
    assert [each.budget for each in finalists(rungs, 2)] == [0.3, 0.5]


def test_where_none_is_within_them_the_nearest_is():
    assert [each.budget for each in finalists([rung(0.5, 1.1), rung(0.3, 3.0)], 2)] == [0.5]
    assert finalists([], 2) == []
