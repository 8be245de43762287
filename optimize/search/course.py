"""What a search tries next, from what it has found: budgets one below the other, then time where it pays.

A model is pruned in steps, each beginning with what learnt last, and learns for a few minutes at each.
That goes on as long as the budget reached is expected to come within the limits once it gets the larger part of the
time that is left. Then the smallest budget of which this can be expected gets that time. If it stays beyond the limits,
the next larger one gets what is left; if it comes within them, the budget below it may be tried after all.

What is expected of more time is a power law: errors fall with the time learnt to the power of minus an exponent, which
is measured where a budget has learnt more than once.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from optimize.config import Search

SHARE = 0.6
"""How much of the time left a budget gets that is to come within the limits; another one may need the rest."""
EXPONENT = 0.3
"""Assumed until it is measured: SST-2 at 45 % of the operations came from 0.0074 nats in 2 minutes to 0.0045 in 10."""
MOST_EXPONENT = 1.0
LEAST = 1e-9


@dataclass(frozen=True)
class Try:
    """What a model lost once it had learnt for so many minutes at its budget.

    `strain` is what counts against the limits, as a share of what the tightest allows: within them up to 1.
    `divergence` is from the reference, in the unit that `distill` states it in.
    """

    minutes: float
    strain: float
    divergence: float


@dataclass(frozen=True)
class Rung:
    """A budget and all tries at it, one after the other."""

    budget: float
    tries: tuple[Try, ...]

    @property
    def within(self) -> bool:
        """Whether the model as it is now keeps to the limits."""
        return self.tries[-1].strain <= 1.0

    def then(self, found: Try) -> Rung:
        """The same after another try."""
        return replace(self, tries=(*self.tries, found))


@dataclass(frozen=True)
class Move:
    """Learn so many minutes at this budget, which is one that was tried or the next below."""

    budget: float
    minutes: float


def next_move(rungs: Sequence[Rung], left: float, search: Search, *, lowest: float = 0.0) -> Move | None:
    """What to try with so many minutes left; None where nothing is to be gained, or no time to gain it.

    `rungs` come in falling order. What was built at budgets up to `lowest` stays as it is.
    """
    if left < search.probe_minutes:
        return None
    below = [each for each in search.budgets if each > lowest and (not rungs or each < rungs[-1].budget)]
    generous = left * SHARE if left * (1 - SHARE) >= search.probe_minutes else left
    exponent = measured_exponent(rungs)
    if below and (not rungs or expected(rungs[-1], generous, exponent) <= 1.0):
        return Move(below[0], search.probe_minutes)
    for rung in reversed([each for each in rungs if each.budget > lowest]):
        if rung.within and len(rung.tries) > 1:
            return None
        if expected(rung, generous, exponent) <= 1.0:
            return Move(rung.budget, generous)
    return None


def expected(rung: Rung, minutes: float, exponent: float) -> float:
    """The strain after so many more minutes."""
    last = rung.tries[-1]
    return float(last.strain * ((last.minutes + minutes) / last.minutes) ** -exponent)


def measured_exponent(rungs: Sequence[Rung]) -> float:
    """How fast divergence fell with time, as the median of all budgets that learnt more than once."""
    found = []
    for rung in rungs:
        first, last = rung.tries[0], rung.tries[-1]
        if first.minutes < last.minutes:
            fall = math.log(max(first.divergence, LEAST) / max(last.divergence, LEAST))
            found.append(fall / math.log(last.minutes / first.minutes))
    return min(MOST_EXPONENT, max(0.0, statistics.median(found))) if found else EXPONENT


def finalists(rungs: Sequence[Rung], count: int) -> list[Rung]:
    """The budgets that are worth quantizing: the smallest within the limits, or the one that misses them least."""
    within = [rung for rung in reversed(rungs) if rung.within]
    if within or not rungs:
        return within[:count]
    return [min(rungs, key=lambda rung: rung.tries[-1].strain)]
