"""F1 class by class beside the reference's on the same examples: what a score of all of them hides of a rare one.

Macro F1 is the mean over the classes that occur among the right answers; of the others there is nothing to find.
Intervals are paired bootstraps, as the metric's.
"""

from __future__ import annotations

from dataclasses import dataclass

from optimize.evaluate.statistics import percentile_interval
from optimize.interfaces import Array, ClassCounts
from optimize.manifest import ClassF1, MacroF1

AT_ONCE = 100
"""Resamples that are counted together, which bounds the memory that they take."""


@dataclass(frozen=True)
class Drops:
    """Drops of F1 by class on resamples, [R, C], and on the examples themselves."""

    resampled: Array
    ours: Array
    theirs: Array


def compare_classes(
    candidate: ClassCounts, reference: ClassCounts, *, confidence: float, seed: int, resamples: int
) -> tuple[list[ClassF1], MacroF1]:
    """F1 of each class that has a right answer, in the classes' order, and the mean over these.

    Both count the same N examples and C classes.
    """
    gold = reference.counts[..., 2].sum(axis=0)
    kept = gold.nonzero()[0]
    drops = _drops(candidate.counts[:, kept], reference.counts[:, kept], seed=seed, resamples=resamples)
    found = []
    for place, index in enumerate(kept):
        ours, theirs = float(drops.ours[place]), float(drops.theirs[place])
        resampled = drops.resampled[:, place]
        found.append(
            ClassF1(
                name=reference.names[index],
                support=int(gold[index]),
                value=ours,
                reference=theirs,
                drop=theirs - ours,
                interval=percentile_interval(resampled, confidence=confidence),
                standard_error=float(resampled.std(ddof=1)),
            )
        )
    means = drops.resampled.mean(axis=1)
    ours, theirs = float(drops.ours.mean()), float(drops.theirs.mean())
    macro = MacroF1(
        value=ours,
        reference=theirs,
        drop=theirs - ours,
        interval=percentile_interval(means, confidence=confidence),
        standard_error=float(means.std(ddof=1)),
    )
    return found, macro


def _drops(ours: Array, theirs: Array, *, seed: int, resamples: int) -> Drops:
    """Drops of F1, of counts [N, C, 3] of both."""
    import numpy as np
    from scipy.sparse import csr_array

    examples, classes, _ = ours.shape
    # Mostly zeros: an example is of one class or of few.
    tables = [csr_array(counts.reshape(examples, -1).T.astype(np.float64)) for counts in (ours, theirs)]
    rng = np.random.default_rng(seed)
    found = []
    for first in range(0, resamples, AT_ONCE):
        many = min(AT_ONCE, resamples - first)
        # How often each example is drawn, [N, many]: the same of both models.
        draws = rng.multinomial(examples, np.full(examples, 1.0 / examples), size=many).T
        left, right = (class_f1((table @ draws).T.reshape(many, classes, 3)) for table in tables)
        found.append(right - left)
    return Drops(np.concatenate(found), class_f1(ours.sum(axis=0)), class_f1(theirs.sum(axis=0)))


def class_f1(counts: Array) -> Array:
    """F1 of counts [..., 3], which are true positives, predicted and gold; 0 of nothing."""
    import numpy as np

    found: Array = 2.0 * counts[..., 0] / np.maximum(counts[..., 1] + counts[..., 2], 1)
    return found
