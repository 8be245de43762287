"""Whether data can prove anything of a model's answers: pure functions of what was measured.

A model may keep its score on data that would not show a loss: a handful of examples, one class alone, a checkpoint
that knows no more than an answer that is the same for every text. Then limits are met, and nothing is proven.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from optimize.manifest import Check, ClassF1, Metric
from optimize.rule import ROUNDING, Estimate

LEAST_EXAMPLES = 20
"""Of fewer, a bootstrap's 95 % interval is made of the extremes alone."""
FINEST, COARSEST = 0.005, 0.5
"""Limits, as shares of answers, that are held to: hardly any data set is large enough to prove a finer one."""


def doubts(metric: Metric, *, share: float | None, drop: float | None, agrees: bool | None) -> Iterator[Check]:
    """What keeps a metric from proving that limits are met; nothing where it can, or where that was not recorded.

    `share` is the tightest of the limits, as a share of answers that may differ; `drop` the largest drop that they
    allow, in the metric's unit. `agrees` says whether an answer that is the same for every text may meet the limit on
    agreement. Each is None where no limit says.
    """
    yield from _too_few(metric, share)
    yield from _no_better(metric, drop, agrees)


def class_doubts(classes: Sequence[ClassF1], limit: float, *, confidence: float) -> Iterator[Check]:
    """The class with the fewest right answers, where these are too few to prove a limit on each class's F1."""
    rarest = min(classes, key=lambda each: each.support, default=None)
    needed = answers_needed(limit, confidence=confidence)
    if rarest is not None and rarest.support < needed:
        yield _doubt(
            "enough_examples_of_class",
            needed,
            rarest.support,
            f"{_count(rarest.support, 'example')} of class '{rarest.name}' cannot prove a limit of {limit:.4g}; "
            f"certify on data with {needed:,} or more of it, or judge larger classes alone with class_support",
        )


def more_examples(name: str, limit: float, found: Estimate, examples: int) -> str:
    """How many more examples would decide it: an interval shrinks with their root."""
    lowest = name.startswith("min_")
    room = found.value - limit if lowest else limit - found.value
    reach = found.value - found.lower if lowest else found.upper - found.value
    if not (room > ROUNDING and reach > 0):
        return "no number of examples would decide it"
    needed = examples * (reach / room) ** 2
    more = float(f"{needed - examples:.2g}")
    if more < 1:
        return "some more examples would decide it"
    return f"about {more:,.0f} more examples would decide it"


def answers_needed(share: float, *, confidence: float) -> int:
    """How many answers, none of which differs, show at `confidence` that no more than a share of all do."""
    # If the share did differ, n answers would all be alike with a chance of (1 - share)^n.
    bounded = min(max(share, FINEST), COARSEST)
    return math.ceil(math.log(1.0 - confidence) / math.log(1.0 - bounded) - 1e-9)


def _too_few(metric: Metric, share: float | None) -> Iterator[Check]:
    """Examples that would prove nothing even if the model answered all of them as the reference does."""
    if metric.answers is None:
        return
    needed = answers_needed(COARSEST if share is None else share, confidence=metric.confidence)
    if metric.examples < LEAST_EXAMPLES:
        yield _doubt(
            "enough_examples",
            LEAST_EXAMPLES,
            metric.examples,
            f"{_count(metric.examples, 'example')} can prove nothing; certify on {max(needed, LEAST_EXAMPLES)} or more",
        )
    elif metric.answers < needed:
        missed = 1.0 - (1.0 - metric.confidence) ** (1.0 / metric.answers)
        yield _doubt(
            "enough_examples",
            needed,
            metric.answers,
            f"{_count(metric.answers, 'answer')} cannot prove a limit of {share:.4g}: were all of them the "
            f"reference's, {missed:.1%} of others might not be (at {metric.confidence:.4g}); certify on {needed:,} "
            "answers or more",
        )


def _no_better(metric: Metric, drop: float | None, agrees: bool | None) -> Iterator[Check]:
    """A reference that knows no more than one answer for all texts, or limits that such an answer would meet."""
    constant = metric.constant
    if constant is None:
        return
    lower, upper = constant.interval
    lead = f"the reference scores {metric.reference:.4f} and the best answer that is the same for every text "
    lead += (
        f"{constant.value:.4f} (lead {constant.lead:.4f}, from {lower:.4f} to {upper:.4f} at {metric.confidence:.4g})"
    )
    if not lower > 0:
        yield _doubt(
            "better_than_constant",
            0.0,
            lower,
            f"{lead}, so its answers prove nothing; check the checkpoint and the labels, or certify on more data, with "
            "more of every class",
        )
    elif _meets(lower, drop, agrees):
        yield _doubt(
            "better_than_constant",
            drop or 0.0,
            lower,
            f"{lead}, which may meet every limit on answers too; certify on data with more of every class, or set "
            "tighter limits",
        )


def _meets(lead: float, drop: float | None, agrees: bool | None) -> bool:
    """Whether an answer that is the same for every text may meet all limits on answers; not where there is none."""
    if drop is None and agrees is None:
        return False
    return (drop is None or lead <= drop) and agrees is not False


def _doubt(name: str, limit: float, value: float, reason: str) -> Check:
    return Check(name=name, limit=limit, value=value, outcome="unverified", reason=reason)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
