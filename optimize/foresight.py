"""How small a loss so many examples can tell, said before anything is measured."""

from __future__ import annotations

import math
from statistics import NormalDist

from optimize.gates import Gates
from optimize.rule import Rule

SURE = 0.95
"""How often what is foreseen comes true."""
AGREEMENT = 0.95
"""Assumed where no limit says how many answers have to stay as they are."""
SCORE = 0.8
"""Assumed of FP32 where a limit is a share of its score."""


def foresee(gates: Gates, examples: int) -> str | None:
    """What so many examples decide of the tightest limit on the metric's drop, in words; None where there is none.

    Each decision that differs is taken to move one example's score by 1, which is the worst that it can do.
    """
    absolute, relative = gates.max_metric_drop, gates.max_relative_metric_drop
    limits = [limit for limit in (absolute, None if relative is None else SCORE * relative) if limit is not None]
    if not limits:
        return None
    limit, rule = min(limits), gates.decided_by
    agreement = AGREEMENT if gates.min_agreement is None else gates.min_agreement
    told = smallest_told(rule, agreement, examples, gates.level)
    seldom = f"in {100 * SURE:.0f} of 100 runs"
    if rule != "proven":
        words = f"a drop of {limit + told:.4f} fails {seldom}"
    elif told <= limit:
        words = f"a drop of {limit - told:.4f} passes {seldom}"
    else:
        words = f"a model that lost nothing passes less often than {seldom}"
    scores = "" if relative is None else f" and FP32 scores {SCORE:g}"
    words = f"with {examples:,} examples {words} (limit {limit:.4g}), if {agreement:.0%} of answers stay{scores}"
    if told <= limit or not limit:
        return words
    needed = examples_to_tell(rule, agreement, limit, gates.level)
    goal = "what lost nothing passes" if rule == "proven" else "twice the limit fails"
    return f"{words}; with --examples {needed:,} {goal} as often"


def smallest_told(rule: Rule, agreement: float, examples: int, confidence: float) -> float:
    """How far from its limit a drop has to be for that to be found out, nearly always."""
    return _reach(rule, confidence) * math.sqrt((1.0 - agreement) / examples)


def examples_to_tell(rule: Rule, agreement: float, drop: float, confidence: float) -> int:
    """How many examples find that out of a drop that is so far from its limit."""
    return math.ceil((1.0 - agreement) * (_reach(rule, confidence) / drop) ** 2)


def _reach(rule: Rule, confidence: float) -> float:
    """Standard errors from the limit: those of the proof, if the rule asks for one, and those of the estimate."""
    proof = 0.0 if rule == "estimate" else NormalDist().inv_cdf(confidence)
    return proof + NormalDist().inv_cdf(SURE)
