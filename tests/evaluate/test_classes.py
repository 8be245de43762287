"""F1 by class beside scikit-learn's, and what the bootstrap says of each class."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from optimize.evaluate.classes import compare_classes, f1_p_values
from optimize.heads._metrics import NO_CLASS, counts_of
from optimize.interfaces import ClassCounts

NAMES = ("joy", "anger", "fear", "never")
GOLD = np.array([0] * 200 + [1] * 90 + [2] * 10)
RNG = np.random.default_rng(0)
REFERENCE = np.where(RNG.random(300) < 0.9, GOLD, RNG.integers(0, 4, 300))
CANDIDATE = np.where(GOLD == 2, 0, REFERENCE)


def compared(candidate, reference, *, resamples=300, seed=0):
    ours, theirs = (counts_of(each, GOLD, NAMES) for each in (candidate, reference))
    return compare_classes(ours, theirs, confidence=0.95, seed=seed, resamples=resamples)


def test_f1_is_scikit_learns_and_of_the_classes_that_occur():
    classes, macro = compared(CANDIDATE, REFERENCE)

    assert [(each.name, each.support) for each in classes] == [("joy", 200), ("anger", 90), ("fear", 10)]
    labels = [0, 1, 2]
    for said, predicted in (("value", CANDIDATE), ("reference", REFERENCE)):
        expected = f1_score(GOLD, predicted, labels=labels, average=None)
        assert [getattr(each, said) for each in classes] == pytest.approx(expected.tolist())
        assert getattr(macro, said) == pytest.approx(expected.mean())
    assert macro.drop == pytest.approx(macro.reference - macro.value)


def test_a_rare_class_that_vanishes_is_seen():
    classes, macro = compared(CANDIDATE, REFERENCE)

    fear = classes[2]
    assert (fear.value, fear.drop) == (0.0, fear.reference)
    assert fear.interval[0] > 0.3
    assert macro.interval[0] > 0.1


def test_models_that_answer_alike_have_no_drop_and_no_doubt():
    classes, macro = compared(REFERENCE, REFERENCE)

    assert {(each.drop, each.interval, each.standard_error) for each in (*classes, macro)} == {(0.0, (0.0, 0.0), 0.0)}


def test_the_bootstrap_is_the_one_that_draws_examples():
    classes, macro = compared(CANDIDATE, REFERENCE, resamples=1000)

    rng, drops = np.random.default_rng(9), []
    for _ in range(500):
        rows = rng.integers(0, 300, 300)
        sides = [f1_by_hand(each[rows], GOLD[rows]) for each in (REFERENCE, CANDIDATE)]
        drops.append(sides[0] - sides[1])
    errors = np.std(drops, axis=0, ddof=1)
    assert [each.standard_error for each in classes] == pytest.approx(errors.tolist(), rel=0.15)
    assert macro.standard_error == pytest.approx(np.std(np.mean(drops, axis=1)), rel=0.15)


def f1_by_hand(predicted, gold):
    found = []
    for index in range(3):
        ours, right = predicted == index, gold == index
        found.append(2 * (ours & right).sum() / max(ours.sum() + right.sum(), 1))
    return np.array(found)


def test_a_model_that_answers_no_class_has_none():
    classes, macro = compared(np.full(300, NO_CLASS), REFERENCE)

    assert [each.value for each in classes] == [0.0, 0.0, 0.0]
    assert macro.value == 0.0


def test_sets_and_entities_count_several_an_example():
    counts = np.array([[[2, 2, 3], [0, 1, 0]], [[0, 0, 1], [1, 1, 1]]])

    classes, _ = compare_classes(*[ClassCounts(("a", "b"), counts)] * 2, confidence=0.9, seed=0, resamples=20)

    assert [(each.support, each.value) for each in classes] == [(4, pytest.approx(4 / 6)), (1, pytest.approx(2 / 3))]


def counted(*sides: np.ndarray) -> list[np.ndarray]:
    return [counts_of(each, GOLD, NAMES).counts[:, :3] for each in sides]


def test_losses_of_a_class_are_as_likely_as_tosses_of_a_coin():
    """Four texts of class 2 are lost, and none won: one in 16, by as many swaps."""
    worse = GOLD.copy()
    worse[-4:] = 3

    macro, classes = f1_p_values(*counted(worse, GOLD), seed=0)

    assert [macro, classes[2]] == pytest.approx([1 / 16, 1 / 16], abs=0.01)
    assert classes[:2].tolist() == [1.0, 1.0]


def test_a_class_that_is_lost_is_told_from_those_that_are_not():
    macro, classes = f1_p_values(*counted(CANDIDATE, REFERENCE), seed=0)

    assert classes[2] < 0.01
    assert macro < 0.01
    assert classes[1] > 0.5


def test_models_that_answer_alike_are_no_worse():
    macro, classes = f1_p_values(*counted(REFERENCE, REFERENCE), seed=0)
    assert (macro, classes.tolist()) == (1.0, [1.0, 1.0, 1.0])


def test_models_that_are_alike_are_told_apart_as_seldom_as_is_said():
    """Of 400 pairs whose answers are drawn alike; more than 31 were chance in one of 200."""
    rng, found = np.random.default_rng(0), []
    for seed in range(400):
        sides = [np.where(rng.random(300) < 0.9, GOLD, rng.integers(0, 4, 300)) for _ in range(2)]
        macro, classes = f1_p_values(*counted(*sides), seed=seed, swaps=99)
        found.append([macro, classes.min()])
    told_apart = (np.array(found) <= 0.05).sum(axis=0)
    assert (told_apart > 5).all()
    assert (told_apart <= 31).all()
