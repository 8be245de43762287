"""F1 class by class beside the reference's on the same examples: what a score of all of them hides of a rare one.

Macro F1 is the mean over the classes that occur among the right answers; of the others there is nothing to find.
Intervals are paired bootstraps, as the metric's. Whether a model is worse than another is tested by swapping their
answers at random (Noreen 1989; Yeh 2000): were they alike, that would change nothing. It is wrong as seldom as it says,
however few answers of a class differ. Of four losses and no gain, chance makes one in sixteen, and a bootstrap one in
fifty.
"""

from __future__ import annotations

from dataclasses import dataclass

from optimize.evaluate.statistics import percentile_interval
from optimize.interfaces import Array, ClassCounts
from optimize.manifest import ClassF1, MacroF1
from optimize.rule import ROUNDING

AT_ONCE = 100
"""Resamples that are counted together, which bounds the memory that they take."""
SWAPS = 9999
"""So that no p can be below 0.0001."""


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
    drops = _drops(that_occur(candidate), that_occur(reference), seed=seed, resamples=resamples)
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


def that_occur(classes: ClassCounts) -> Array:
    """The counts of the classes that have a right answer, in their order, [N, C, 3]."""
    return classes.counts[:, classes.counts[..., 2].any(axis=0)]


def f1_p_values(candidate: Array, baseline: Array, *, seed: int, swaps: int = SWAPS) -> tuple[float, Array]:
    """One-sided, that macro F1 is no less than a baseline's, and each class's F1, [C]; of counts [N, C, 3] of both.

    Those of classes hold together: each says how often the largest drop of any, in units of its own spread, is as large
    by chance (Westfall and Young 1993). So the least of them is a test of all classes.
    """
    import numpy as np

    found = class_f1(baseline.sum(axis=0)) - class_f1(candidate.sum(axis=0))
    drops = _swapped(candidate, baseline, seed=seed, swaps=swaps)
    spread = drops.std(axis=0)
    units = np.where(spread > 0, spread, 1.0)  # where nothing differs, no drop is either
    largest = (drops / units).max(axis=1)
    # What is as large but for rounding counts as being so.
    macro = float((drops.mean(axis=1) >= found.mean() - ROUNDING).sum() + 1) / (swaps + 1)
    return macro, ((largest[:, None] >= found / units - ROUNDING).sum(axis=0) + 1) / (swaps + 1)


def _swapped(ours: Array, theirs: Array, *, seed: int, swaps: int) -> Array:
    """Drops of F1 by class, [R, C], where whose answer is whose was drawn anew for every example."""
    import numpy as np

    differ = (ours != theirs).any(axis=(1, 2))
    moves = theirs[differ].astype(np.float64) - ours[differ]
    rng, shape = np.random.default_rng(seed), ours.shape[1:]
    table = moves.reshape(len(moves), shape[0] * shape[1])
    found = []
    for first in range(0, swaps, AT_ONCE):
        drawn = rng.integers(0, 2, (min(AT_ONCE, swaps - first), len(moves)))
        moved = (drawn @ table).reshape(-1, *shape)
        found.append(class_f1(theirs.sum(axis=0) - moved) - class_f1(ours.sum(axis=0) + moved))
    return np.concatenate(found)


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
