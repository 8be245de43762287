"""Accuracy-aware fallback: leave in float what the limits do not allow, at the least cost in time.

Groups go back to float one at a time, the one first that takes away most divergence for each
microsecond it costs. What a group takes away is at first taken to be the error that it causes alone.
Where a group takes away less than half of that, the errors evidently don't add up, and it has to
stand against the next most promising ones, measured in the company of what is quantized. Once the limits are met,
each group is tried in INT8 again, the slowest first, and stays so if they still are.

NNCF's accuracy control and Neural Compressor's `mse_v2` work alike, on the metric alone and without
regard to time. Divergence ranks better: a metric on some hundred examples moves in steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from optimize.errors import StageError
from optimize.evaluate.judge import Loss, describe
from optimize.gates import Gates
from optimize.interfaces import Progress
from optimize.quantization.sensitivity import Cost
from optimize.quantization.sites import Group
from optimize.quantization.variants import Variants

AGAIN = 5
LEAST_US = 1.0


@dataclass(frozen=True)
class Step:
    """A group left in float: how much divergence that took away when it was done, and the time it costs."""

    group: Group
    divergence_removed: float
    lost_us: float


@dataclass(frozen=True)
class Outcome:
    """What is left in float, and what the rest loses on tuning data."""

    steps: tuple[Step, ...]
    loss: Loss
    tried: int


@dataclass
class _Search:
    """How far the search has come.

    `room` is how many weights may stay in float. `expected` says by group how much divergence it is thought to take
    away, and lacks those that were reverted or found to be of no use.
    """

    variants: Variants
    costs: dict[str, Cost]
    room: int
    progress: Progress
    expected: dict[str, float]
    steps: list[Step] = field(default_factory=list)
    tried: int = 0

    def assess(self, left: Sequence[Group]) -> Loss:
        self.tried += 1
        loss = self.variants.assess(self.variants.without(left))
        self.progress.say(f"fallback: {len(left)} groups in float: {describe(loss)}")
        return loss

    def left(self) -> list[Group]:
        return [step.group for step in self.steps]

    def candidates(self) -> list[Group]:
        """Groups that are still quantized and fit the room, the most rewarding first."""
        left = {group.name: group.parameters for group in self.left()}
        room = self.room - sum(left.values())
        fitting: list[Group] = []
        for group in self.variants.groups:
            hopeful = group.name in self.expected and group.name not in left
            if hopeful and group.parameters <= room:
                fitting.append(group)
        return sorted(fitting, key=lambda group: -self.reward(group))

    def reward(self, group: Group) -> float:
        """The divergence that a group is thought to take away, for each microsecond that it costs in float."""
        # A saving that is lost in noise would otherwise make a group the best of all, or a negative one the worst.
        return self.expected[group.name] / max(self.costs[group.name].saved_us, LEAST_US)


def fall_back(variants: Variants, costs: Sequence[Cost], *, max_float_share: float, progress: Progress) -> Outcome:
    """Revert groups until the limits are met on tuning data; `max_float_share` bounds the weights left in float."""
    total = sum(group.parameters for group in variants.groups)
    by_group = {cost.group.name: cost for cost in costs}
    expected = {name: cost.loss.divergence for name, cost in by_group.items()}
    search = _Search(variants, by_group, int(max_float_share * total), progress, expected)
    judge = variants.judge
    loss = best = search.assess([])
    while not judge.allows(loss):
        candidates = search.candidates()
        if not candidates:
            raise StageError(_hopeless(best, judge.limits, max_float_share))
        group, found = _choose(search, candidates, loss)
        removed = loss.divergence - found.divergence
        del expected[group.name]  # taken or not, it is not tried again
        if removed > 0 or judge.allows(found):
            search.steps.append(Step(group, removed, search.costs[group.name].saved_us))
            loss = found
            best = min(best, loss, key=judge.excess)
    return _put_back(search, loss)


def _choose(search: _Search, candidates: Sequence[Group], loss: Loss) -> tuple[Group, Loss]:
    """The first candidate; where it takes away less than half of what it should, the best of some measured now."""
    first, allows = candidates[0], search.variants.judge.allows
    now = search.assess([*search.left(), first])
    removed = loss.divergence - now.divergence
    if allows(now) or removed >= search.expected[first.name] / 2:
        return first, now

    # What groups cost alone says little here, so what is expected of the next ones gives way to what is measured.
    tried = candidates[: 1 + AGAIN]
    found = {first.name: now}
    for group in tried[1:]:
        found[group.name] = search.assess([*search.left(), group])
    for group in tried:
        search.expected[group.name] = max(loss.divergence - found[group.name].divergence, 0.0)
    best = max(tried, key=lambda group: (allows(found[group.name]), search.reward(group)))
    return best, found[best.name]


def _put_back(search: _Search, loss: Loss) -> Outcome:
    """Quantize again whatever the limits do not need in float, the slowest first."""
    for step in sorted(search.steps, key=lambda step: -step.lost_us):
        if len(search.steps) == 1:
            break  # without any step the limits were not met
        rest = [other for other in search.steps if other is not step]
        found = search.assess([other.group for other in rest])
        if search.variants.judge.allows(found):
            search.steps, loss = rest, found
    return Outcome(tuple(search.steps), loss, search.tried)


def _hopeless(best: Loss, limits: Gates, share: float) -> str:
    words = {
        "drop": limits.max_metric_drop,
        "relative drop": limits.max_relative_metric_drop,
        "agreement": limits.min_agreement,
    }
    asked = ", ".join(f"{name} {limit:g}" for name, limit in words.items() if limit is not None)
    return (
        f"quantize_static: with at most {share:.0%} of the weights in float no fallback meets the limits ({asked}); "
        f"the best was {describe(best)}; raise max_float_share, loosen the gates, or begin with 'train_quantized'"
    )
