"""The words of the package that do something themselves: the first examples of a split."""

import itertools

import numpy as np
import pytest

from optimize.interfaces import Encoded, Feature

WINDOWS = [[4], [4, 4], [4]]
"""The tokens of each feature of each example."""


def encoded(sizes):
    """Examples whose features have these many tokens; a pair is choices x tokens."""
    features = [
        Feature({"input_ids": np.ones(size, np.int64)}, example)
        for example, windows in enumerate(sizes)
        for size in windows
    ]
    return Encoded(tuple(features), tuple(range(len(sizes))), truncated=1)


@pytest.mark.parametrize(
    ("sizes", "tokens", "examples"),
    [
        ([[4], [4], [4]], 12, 3),
        ([[4], [4], [4]], 11, 2),
        ([[4], [4], [4]], 1, 1),
        ([[9, 9, 9], [1]], 10, 1),
        (WINDOWS, 11, 1),
        (WINDOWS, 12, 2),
        (WINDOWS, 15, 2),
        (WINDOWS, 16, 3),
        ([], 5, 0),
    ],
)
def test_whole_examples_are_taken_until_the_tokens_are_used_up(sizes, tokens, examples):
    found = encoded(sizes).first(tokens=tokens)
    assert found.gold == tuple(range(examples))
    assert [each.tokens for each in found.features] == list(itertools.chain(*sizes[:examples]))


@pytest.mark.parametrize(("tokens", "examples"), [(15, 1), (16, 2)])
def test_all_choices_of_a_feature_count(tokens, examples):
    found = encoded([[(2, 4)], [(4, 2)], [(1, 1)]]).first(tokens=tokens)
    assert len(found.gold) == examples


@pytest.mark.parametrize(("examples", "features"), [(0, 0), (1, 1), (2, 3)])
def test_so_many_examples_are_taken_with_all_their_features(examples, features):
    found = encoded(WINDOWS).first(examples=examples)
    assert (len(found.gold), len(found.features), found.truncated) == (examples, features, 1)


def test_both_limits_hold():
    here = encoded(WINDOWS)
    assert here.first(examples=1, tokens=100).gold == here.first(examples=3, tokens=5).gold == (0,)


def test_what_is_within_the_limits_stays_the_same_object():
    here = encoded(WINDOWS)
    assert here.first() is here.first(examples=3) is here.first(examples=10_000, tokens=16) is here
