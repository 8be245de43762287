"""Metrics as functions of per-example statistics, [N, k] -> float, fast enough for a bootstrap.

Each returns 0.0 where it is undefined (an empty selection, a constant column), never NaN: a
comparison with NaN is always false, and a model must be able to fail its limits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from optimize.interfaces import ClassCounts, Said

Array = npt.NDArray[Any]

NO_CLASS = -1  # the decision of a model that answered NaN: never right


def decided(logits: Array) -> Array:
    """Return the likeliest class along the last axis; NO_CLASS where a logit is NaN."""
    return np.where(np.isnan(logits).any(axis=-1), NO_CLASS, logits.argmax(axis=-1))


def ratio(part: float, whole: float) -> float:
    """Return part / whole, and 0.0 of nothing."""
    return float(part / whole) if whole else 0.0


def mean_of_first(statistics: Array) -> float:
    """Return the mean of column 0."""
    return ratio(float(statistics[:, 0].sum()), len(statistics))


def share(statistics: Array) -> float:
    """Return the sum of column 0 over the sum of column 1."""
    return ratio(float(statistics[:, 0].sum()), float(statistics[:, 1].sum()))


def micro_f1(statistics: Array) -> float:
    """Return F1 from columns (true positives, predicted, gold)."""
    true, predicted, gold = statistics[:, :3].sum(axis=0)
    return ratio(2.0 * float(true), float(predicted + gold))


def macro_f1(predicted: Array, gold: Array) -> float:
    """Return the mean F1 of the classes that occur in either, as scikit-learn does."""
    scores = []
    for label in np.union1d(predicted, gold):
        ours, right = predicted == label, gold == label
        scores.append(ratio(2.0 * int((ours & right).sum()), int(ours.sum() + right.sum())))
    return float(np.mean(scores))


def counts_of(predicted: Array, gold: Array, names: Sequence[str]) -> ClassCounts:
    """Count single classes, [N] each, by example and class."""
    counts = np.zeros((len(gold), len(names), 3), dtype=np.int8)
    rows = np.arange(len(gold))
    known = predicted != NO_CLASS
    counts[rows[known], predicted[known], 1] = 1
    counts[rows, gold, 2] = 1
    counts[..., 0] = counts[..., 1] & counts[..., 2]
    return ClassCounts(tuple(names), counts)


def say_classes(
    chosen: Sequence[int], gold: Sequence[int], sure: Sequence[float], names: Sequence[Sequence[str]]
) -> list[Said]:
    """Return each example's chosen class by its name in `names`, [N] of [C], and how sure the model was of it."""
    found = []
    for ours, right, top, classes in zip(chosen, gold, sure, names, strict=True):
        found.append(Said(name_of(ours, classes), classes[right], top, ((top, ours == right),)))
    return found


def name_of(chosen: int, classes: Sequence[str]) -> str:
    """Return the name of a class; a model that answered NaN chose none."""
    return "no number" if chosen == NO_CLASS else classes[chosen]


def pearson(statistics: Array) -> float:
    """Return the correlation of columns 0 and 1."""
    if not len(statistics) or not np.isfinite(statistics).all():
        return 0.0
    left, right = (statistics - statistics.mean(axis=0)).T
    norm = float(np.sqrt((left @ left) * (right @ right)))
    # A constant column leaves rounding noise behind, which must not pass for variance.
    constant = (np.ptp(statistics, axis=0) == 0).any()
    return 0.0 if constant else ratio(float(left @ right), norm)


def spearman(statistics: Array) -> float:
    """Return the rank correlation of columns 0 and 1; ties share their mean rank."""
    if not len(statistics) or not np.isfinite(statistics).all():
        return 0.0
    return pearson(np.stack([_ranks(statistics[:, 0]), _ranks(statistics[:, 1])], axis=1))


def _ranks(values: Array) -> Array:
    order = np.argsort(values)
    ordered = values[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    stops = np.append(starts[1:], len(values))
    ranks = np.empty(len(values))
    # The mean of the ranks start, ..., stop - 1 that equal values would have, given to each of them.
    ranks[order] = np.repeat((starts + stops - 1) / 2, stops - starts)
    return ranks
