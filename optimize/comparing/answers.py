"""Two runs' answers to the same examples, in pairs: which is right where the other is not, and who decides alike.

Rows of `scores.npz` lie in the order of the certification split, whose digest is of its rows in that order. So runs are
paired only where head, metric and that digest are the same, and row i of both is of one example.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from optimize.compared import Answers, Decided
from optimize.comparing.judged import Judged
from optimize.errors import RequestError
from optimize.evaluate.accuracy import COSINE_TO_REFERENCE, RESAMPLES
from optimize.evaluate.drift import agree_on
from optimize.evaluate.statistics import apart, bootstrap_drops, bootstrap_p, mcnemar, percentile_interval
from optimize.heads import HEADS
from optimize.interfaces import Array
from optimize.manifest import Manifest, Metric
from optimize.report.tables import REFERENCE
from optimize.rule import ROUNDING
from optimize.scores import Kept

CONFIDENCE = 0.95
SEED = 0
Aggregate = Callable[[Array], float]


@dataclass(frozen=True)
class Paired:
    """Two scores of the same examples, row by row; `are_counts` where the metric is the share of right answers."""

    first: Kept
    second: Kept
    statistics: tuple[Array, Array]
    aggregate: Aggregate
    are_counts: bool

    def drops(self) -> Array:
        """Resampled drops from the first to the second."""
        ours, theirs = self.statistics
        return bootstrap_drops(theirs, ours, self.aggregate, seed=SEED, resamples=RESAMPLES)

    def p_value(self, drops: Array, *, worse: bool) -> float:
        """That both score alike; with `worse`, that the second scores no less."""
        if self.are_counts and self.first.right is not None and self.second.right is not None:
            return mcnemar(*apart(self.second.right, self.first.right), worse=worse)
        return bootstrap_p(drops, worse=worse)

    def alone(self) -> tuple[int, int] | None:
        """Examples that the first alone has right, and the second alone; None where none is right or wrong."""
        ours, theirs = self.first.right, self.second.right
        if ours is None or theirs is None:
            return None
        return apart(theirs, ours)


def why_not_the_same(first: Manifest, second: Manifest) -> str | None:
    """Why two runs' answers cannot be held against each other; None where they answer the same question."""
    ours, theirs = first.request, second.request
    if ours.head != theirs.head:
        return f"their heads differ: {ours.head} and {theirs.head}"
    if (ours.head_code and ours.head_code.digest) != (theirs.head_code and theirs.head_code.digest):
        return f"the file of their head, {ours.head}, is not the same"
    if first.data["certification"].digest != second.data["certification"].digest:
        counts = " and ".join(f"{each.data['certification'].count:,}" for each in (first, second))
        return f"they were certified on different data ({counts} examples)"
    metrics = [each.measurements[-1].metric for each in (first, second)]
    names = [each.name if each else "none" for each in metrics]
    if names[0] != names[1] or "none" in names:
        return f"their metrics differ: {names[0]} and {names[1]}"
    examples = [each.examples for each in metrics if each]
    if examples[0] != examples[1]:
        return f"they scored {examples[0]:,} and {examples[1]:,} examples"
    return None


def pair(first: Judged, second: Judged) -> Paired | str:
    """The results of two runs in pairs, or why that cannot be."""
    if why := why_not_the_same(first.record, second.record):
        return why
    sides = [_scored(each) for each in (first, second)]
    for side in sides:
        if isinstance(side, str):
            return side
    (ours, aggregate, one), (theirs, _, other) = (side for side in sides if not isinstance(side, str))
    kept = [each.kept(each.result.name) for each in (first, second)]
    return Paired(kept[0], kept[1], (ours, theirs), aggregate, one and other)


def _scored(run: Judged) -> tuple[Array, Aggregate, bool] | str:
    """A result's statistics, what makes the metric of them, and whether that counts right answers; or why not.

    Refuses statistics that are not those of the manifest's metric.
    """
    metric, kept = run.result.metric, run.kept(run.result.name)
    if metric is None:
        return f"{run.name} has no metric"
    if metric.name == COSINE_TO_REFERENCE:
        return "there are no right answers: each run compares its vectors with its own reference's alone"
    if kept.statistics is None:
        return f"what each example scored was not recorded in {run.name}"
    found = _by_answers(kept, metric) or _by_statistics(run, kept.statistics)
    if found is None:
        return f"what makes {metric.name} of its statistics is known to its head's own file alone"
    statistics, aggregate, are_counts = found
    if len(statistics) != metric.examples or not _same(aggregate(statistics), metric.value):
        raise RequestError(f"{run.name}: its scores.npz is not of its manifest's metric; certify the run")
    return statistics, aggregate, are_counts


def _by_answers(kept: Kept, metric: Metric) -> tuple[Array, Aggregate, bool] | None:
    """Right and wrong as 1 and 0, where the metric is their mean."""
    right = kept.right
    if right is None or not len(right) or not _same(_mean(right), metric.value):
        return None
    return right[:, None].astype(float), _mean, True


def _by_statistics(run: Judged, statistics: Array) -> tuple[Array, Aggregate, bool] | None:
    request, metric = run.record.request, run.result.metric
    aggregates = HEADS[request.head].aggregates if request.head_code is None else {}
    aggregate = aggregates.get(metric.name) if metric else None
    return (statistics, aggregate, False) if aggregate else None


def _mean(values: Array) -> float:
    return float(values.mean())


def _same(stated: float, follows: float) -> bool:
    return math.isclose(stated, follows, rel_tol=ROUNDING, abs_tol=ROUNDING)


def compare_answers(paired: Paired) -> Answers:
    """What two results score on the same examples."""
    ours, theirs = paired.statistics
    drops, alone = paired.drops(), paired.alone()
    low, high = percentile_interval(-drops, confidence=CONFIDENCE)
    return Answers(
        examples=len(ours),
        difference=paired.aggregate(theirs) - paired.aggregate(ours),
        interval=(low, high),
        first_alone=alone[0] if alone else None,
        second_alone=alone[1] if alone else None,
        test="mcnemar" if paired.are_counts else "bootstrap",
        p_value=paired.p_value(drops, worse=False),
    )


def compare_decisions(first: Judged, second: Judged) -> Decided | str:
    """How far two results decide alike, or why that cannot be said."""
    if why := why_not_the_same(first.record, second.record):
        return why
    found = _decisions((first, first.result.name), (second, second.result.name))
    if isinstance(found, str):
        return found
    ours, theirs = found
    agreement, differing, decisions = agree_on(theirs, ours, ordinal=_is_ordinal(first))
    return Decided(agreement=agreement, differing=differing, decisions=decisions)


def agreement_p(baseline: Judged, run: Judged) -> float | str:
    """One-sided, that a run agrees with its FP32 reference as often as the baseline with its own; or why not known."""
    sides = [(run, name) for run in (baseline, run) for name in (run.result.name, REFERENCE)]
    found = _decisions(*sides)
    if isinstance(found, str):
        return found
    old, old_reference, new, new_reference = found
    if not _is_ordinal(run):
        return mcnemar(*apart(new == new_reference, old == old_reference), worse=True)
    before, after = _orders(old, old_reference), _orders(new, new_reference)
    return bootstrap_p(bootstrap_drops(after, before, _agreement_of_orders, seed=SEED, resamples=RESAMPLES), worse=True)


def _decisions(*sides: tuple[Judged, str]) -> list[Array] | str:
    """What models decided, each one of a run's; or why they cannot be held against each other."""
    found: list[Array] = []
    for run, measurement in sides:
        decisions = run.kept(measurement).decisions
        if decisions is None:
            return f"decisions of {measurement} were not recorded in {run.name}"
        found.append(decisions)
    first = found[0]
    if not len(first) or any(len(each) != len(first) or each.dtype.kind != first.dtype.kind for each in found):
        return f"decisions are not alike: {', '.join(f'{len(each):,} of kind {each.dtype.kind}' for each in found)}"
    return found


def _is_ordinal(run: Judged) -> bool:
    return run.kept(run.result.name).ordinal


def _orders(decisions: Array, reference: Array) -> Array:
    import numpy as np

    return np.stack([decisions, reference], axis=1)


def _agreement_of_orders(table: Array) -> float:
    return agree_on(table[:, 0], table[:, 1], ordinal=True)[0]
