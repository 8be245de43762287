"""A score beside the reference's on the same examples: the drop, and how sure of it one can be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from optimize.errors import StageError
from optimize.evaluate.drift import agree
from optimize.evaluate.statistics import apart, bootstrap_drops, mcnemar, percentile_interval
from optimize.interfaces import Array, Encoded, Head, Score
from optimize.manifest import Constant, Metric

RESAMPLES = 1000
COSINE_TO_REFERENCE = "cosine_to_reference"


def best_constant(head: Head, encoded: Encoded, reference: Score, *, confidence: float, seed: int) -> Constant:
    """The best of the answers that are the same whatever the text says, beside the reference's on the same examples."""
    if reference.metric == COSINE_TO_REFERENCE:
        best = _mean_direction(reference)
    else:
        scores = (head.score(encoded, answers) for answers in head.constants(encoded))
        best = max(scores, key=lambda score: score.value)
    ours, theirs, aggregate = _paired(best, reference)
    leads = bootstrap_drops(ours, theirs, aggregate, seed=seed, resamples=RESAMPLES)
    value = float(aggregate(ours))
    return Constant(
        value=value,
        lead=float(aggregate(theirs)) - value,
        interval=percentile_interval(leads, confidence=confidence),
        agreement=agree(best, reference)[0],
    )


def _mean_direction(reference: Score) -> Score:
    """The one vector that is closest to all of the reference's, given for every example."""
    import numpy as np

    mean = reference.statistics.mean(axis=0)
    length = float(np.linalg.norm(mean))
    vectors = np.tile(mean / (length or 1.0), (len(reference.statistics), 1))
    return replace(reference, statistics=vectors, decisions=np.ones(len(reference.decisions)))


def compare(candidate: Score, reference: Score, *, confidence: float, seed: int, resamples: int = RESAMPLES) -> Metric:
    """Compare two scores of the same split; the interval is the drop's at `confidence`.

    The metric `cosine_to_reference` has no gold: its statistics are unit vectors [N, D], and an
    example scores the cosine between the candidate's and the reference's.
    """
    import numpy as np

    if len(candidate.statistics) != len(reference.statistics) or not len(reference.statistics):
        raise StageError(
            f"accuracy: {len(candidate.statistics)} examples of the candidate, {len(reference.statistics)} of the "
            "reference; score both on the same split"
        )
    ours, theirs, aggregate = _paired(candidate, reference)
    value, target = float(aggregate(ours)), float(aggregate(theirs))
    drops = bootstrap_drops(ours, theirs, aggregate, seed=seed, resamples=resamples)
    drop = target - value
    lost, gained = _apart(candidate, reference)
    return Metric(
        name=candidate.metric,
        value=value,
        reference=target,
        drop=drop,
        relative_drop=drop / abs(target) if target else None,  # rank correlations may be 0, or negative
        interval=percentile_interval(drops, confidence=confidence),
        confidence=confidence,
        standard_error=float(np.std(drops, ddof=1)),
        examples=len(ours),
        p_value=None if lost is None or gained is None else mcnemar(lost, gained),
        lost=lost,
        gained=gained,
        answers=len(ours) if reference.ordinal else len(reference.decisions),
        others=dict(candidate.others),
    )


def _paired(candidate: Score, reference: Score) -> tuple[Array, Array, Callable[[Array], float]]:
    """Statistics of both, row by row of the same examples, and what aggregates them."""
    import numpy as np

    ours, theirs = candidate.statistics, reference.statistics
    if candidate.metric != COSINE_TO_REFERENCE:
        return ours, theirs, candidate.aggregate
    # Of unit vectors the cosine is the product; the reference's with itself is 1, save where it is all zeros.
    return np.sum(ours * theirs, axis=1, keepdims=True), np.sum(theirs * theirs, axis=1, keepdims=True), _mean


def _mean(statistics: Array) -> float:
    return float(statistics.mean())


def _apart(candidate: Score, reference: Score) -> tuple[int | None, int | None]:
    """How many examples the reference alone has right, and how many the candidate; None where that cannot be said."""
    if candidate.right is None or reference.right is None:
        return None, None
    return apart(candidate.right.astype(bool), reference.right.astype(bool))
