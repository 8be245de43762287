from __future__ import annotations

import numpy as np
import pytest

from optimize.errors import StageError
from optimize.evaluate.accuracy import compare
from optimize.evaluate.statistics import mcnemar, percentile_interval
from optimize.interfaces import Score


def mean(statistics: np.ndarray) -> float:
    return float(statistics[:, 0].mean())


def accuracy(right: np.ndarray) -> Score:
    return Score("accuracy", right[:, None].astype(float), mean, decisions=right, right=right)


RIGHT = np.arange(400) % 10 != 0


def test_identical_models_have_no_drop_and_no_doubt() -> None:
    metric = compare(accuracy(RIGHT), accuracy(RIGHT), confidence=0.95, seed=0)
    assert (metric.value, metric.drop, metric.interval, metric.standard_error) == (0.9, 0.0, (0.0, 0.0), 0.0)
    assert (metric.p_value, metric.examples, metric.relative_drop) == (1.0, 400, 0.0)


def test_a_known_drop_lies_in_an_interval_as_wide_as_theory_says() -> None:
    worse = RIGHT & (np.arange(400) % 25 != 1)
    metric = compare(accuracy(worse), accuracy(RIGHT), confidence=0.95, seed=0, resamples=4000)
    error = np.sqrt(0.04 * 0.96 / 400)
    assert metric.drop == pytest.approx(0.04)
    assert metric.relative_drop == pytest.approx(0.04 / 0.9)
    assert metric.standard_error == pytest.approx(error, rel=0.1)
    assert metric.interval == pytest.approx((0.04 - 1.96 * error, 0.04 + 1.96 * error), abs=0.003)


def test_pairing_leaves_out_what_both_models_get_wrong() -> None:
    hard = np.arange(400) % 2 == 0
    metric = compare(accuracy(hard), accuracy(hard), confidence=0.99, seed=1)
    assert metric.interval == (0.0, 0.0)


def test_the_bootstrap_repeats_with_its_seed() -> None:
    worse = accuracy(RIGHT & (np.arange(400) % 7 != 1))
    first, again, other = (compare(worse, accuracy(RIGHT), confidence=0.95, seed=seed) for seed in (3, 3, 4))
    assert first == again
    assert first.standard_error != other.standard_error


def test_metrics_that_are_no_mean_are_aggregated_anew_from_each_resample() -> None:
    def f1(counts: np.ndarray) -> float:
        return float(2 * counts[:, 0].sum() / counts[:, 1:].sum())

    perfect = np.tile([1.0, 1.0, 1.0], (50, 1))
    half = perfect * np.where(np.arange(50)[:, None] % 2, [0, 0, 1], [1, 1, 1])
    ours, theirs = (Score("f1", table, f1, decisions=table[:, 0]) for table in (half, perfect))
    metric = compare(ours, theirs, confidence=0.95, seed=0)
    assert metric.value == pytest.approx(2 / 3)
    assert metric.interval[0] < 1 / 3 < metric.interval[1]
    assert metric.p_value is None


def test_mcnemar_counts_only_examples_on_which_the_models_differ() -> None:
    reference = accuracy(np.array([True] * 6 + [False] + [True] * 50))
    candidate = accuracy(np.array([False] * 6 + [True] + [True] * 50))
    metric = compare(candidate, reference, confidence=0.95, seed=0)
    assert (metric.lost, metric.gained) == (6, 1)
    assert metric.p_value == mcnemar(6, 1) == pytest.approx(2 * (1 + 7) / 2**7)


def test_no_share_is_given_of_a_reference_that_scores_nothing() -> None:
    nothing = np.zeros(20, dtype=bool)
    assert compare(accuracy(nothing), accuracy(nothing), confidence=0.95, seed=0).relative_drop is None


def test_a_drop_from_a_negative_score_is_still_a_drop() -> None:
    ours, theirs = (Score("matthews", np.full((9, 1), value), mean, np.zeros(9)) for value in (-0.4, -0.2))
    assert compare(ours, theirs, confidence=0.95, seed=0).relative_drop == pytest.approx(1.0)


def test_vectors_score_their_cosine_to_the_reference() -> None:
    theirs = np.array([[1.0, 0.0], [0.0, 1.0]])
    ours = np.array([[1.0, 0.0], [0.6, 0.8]])
    scores = [Score("cosine_to_reference", table, mean, decisions=np.zeros(1)) for table in (ours, theirs)]
    metric = compare(*scores, confidence=0.95, seed=0)
    assert (metric.value, metric.reference, metric.drop) == pytest.approx((0.9, 1.0, 0.1))


def test_scores_of_different_splits_are_refused() -> None:
    with pytest.raises(StageError, match="score both on the same split"):
        compare(accuracy(RIGHT[:-1]), accuracy(RIGHT), confidence=0.95, seed=0)


def test_an_interval_over_nan_is_nan() -> None:
    assert np.isnan(percentile_interval(np.array([0.0, np.nan, 1.0]), confidence=0.9)).all()
