"""A score beside the reference's on the same examples: the drop, and how sure of it one can be."""

from __future__ import annotations

from optimize.errors import StageError
from optimize.evaluate.statistics import bootstrap_drops, mcnemar, percentile_interval
from optimize.interfaces import Array, Score
from optimize.manifest import Metric

COSINE_TO_REFERENCE = "cosine_to_reference"


def compare(candidate: Score, reference: Score, *, confidence: float, seed: int, resamples: int = 1000) -> Metric:
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
    ours, theirs, aggregate = candidate.statistics, reference.statistics, candidate.aggregate
    if candidate.metric == COSINE_TO_REFERENCE:
        # Of unit vectors the cosine is the product; the reference's with itself is 1.
        ours, theirs = np.sum(ours * theirs, axis=1, keepdims=True), np.ones((len(ours), 1))
        aggregate = _mean
    value, target = float(aggregate(ours)), float(aggregate(theirs))
    drops = bootstrap_drops(ours, theirs, aggregate, seed=seed, resamples=resamples)
    drop = target - value
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
        p_value=_p_value(candidate, reference),
        others=dict(candidate.others),
    )


def _mean(statistics: Array) -> float:
    return float(statistics.mean())


def _p_value(candidate: Score, reference: Score) -> float | None:
    """McNemar's, for metrics under which an example is right or wrong."""
    if candidate.right is None or reference.right is None:
        return None
    return mcnemar(candidate.right.astype(bool), reference.right.astype(bool))
