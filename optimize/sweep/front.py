"""Which points are better than others, and which one to take. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import inf

from optimize.choosing import Standing, choose
from optimize.errors import RequestError
from optimize.swept import Preference, Swept, Trial


def with_front(trials: Sequence[Trial]) -> list[Trial]:
    """The same, with those marked that no other of their group beats in drop, speed and size together."""
    groups: dict[tuple[str, str, str], list[Trial]] = {}
    for trial in trials:
        groups.setdefault(trial.group, []).append(trial)
    best = {each.id for members in groups.values() for each in front_of(members)}
    return [each.model_copy(update={"on_front": each.id in best}) for each in trials]


def front_of(trials: Iterable[Trial]) -> list[Trial]:
    """Those of one group that no other beats: one that is no worse in all three, and better in one."""
    known = [(costs_of(each), each) for each in trials if each.outcome == "measured"]
    return [each for costs, each in known if not any(_beats(other, costs) for other, _ in known)]


def costs_of(trial: Trial) -> tuple[float, float, float]:
    """Drop, time and size of a point, each a share of FP32's; what was not measured is the worst."""
    time = 1.0 / trial.speedup if trial.speedup else inf
    return _or_worst(trial.relative_drop), time, _or_worst(trial.size_ratio)


def _or_worst(value: float | None) -> float:
    return inf if value is None else value


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(ours <= theirs for ours, theirs in zip(one, other, strict=True))


COSTS: dict[Preference, Callable[[Trial], float]] = {
    "accuracy": lambda trial: costs_of(trial)[0],
    "latency": lambda trial: costs_of(trial)[1],
    "size": lambda trial: costs_of(trial)[2],
}
"""What is to be small, by what is preferred."""


def chosen_of(trials: Sequence[Trial], prefer: Preference) -> Trial | None:
    """The one of a group to certify: as `auto` chooses, by its limits on tuning data; None where none was measured."""
    known = [each for each in trials if each.outcome == "measured"]
    if not known:
        return None
    return known[choose([Standing(each.checks, each.relative_drop, COSTS[prefer](each)) for each in known])]


@dataclass(frozen=True)
class Wanted:
    """What a picked point has to be: limits as shares of FP32, and by what the best of those is taken."""

    model: str | None = None
    target: str | None = None
    max_drop: float | None = None
    min_speedup: float | None = None
    max_size: float | None = None
    prefer: Preference = "latency"

    def misses(self, trial: Trial) -> list[str]:
        """Why a point will not do, in words."""
        drop, speed, size = trial.relative_drop, trial.speedup, trial.size_ratio
        found = []
        if self.max_drop is not None and not (drop is not None and drop <= self.max_drop):
            found.append("loses an unknown share" if drop is None else f"loses {drop:.2%}")
        if self.min_speedup is not None and not (speed is not None and speed >= self.min_speedup):
            found.append("was not timed" if speed is None else f"is {speed:.2f} times as fast")
        if self.max_size is not None and not (size is not None and size <= self.max_size):
            found.append("has no size" if size is None else f"has {size:.3f} of the size")
        return found


def pick(swept: Swept, wanted: Wanted) -> Trial:
    """The best point that is as wanted; raises RequestError where none is, with the one that comes nearest.

    Without a model or target, the sweep must have points of one alone. Points of unlike machines are not compared.
    """
    known = [each for each in swept.trials if each.outcome == "measured"]
    for what, value in (("model", wanted.model), ("target", wanted.target)):
        if value is not None:
            known = [each for each in known if getattr(each, what) == value]
    if not known:
        names = sorted({f"{each.model} on {each.target}" for each in swept.trials})
        raise RequestError(f"{swept.name}: no point was measured of that; it has {', '.join(names)}")
    for what in ("model", "environment"):
        values = sorted({str(getattr(each, what)) for each in known})
        if len(values) > 1:
            advice = "name one with --model" if what == "model" else "name the target of one with --target"
            raise RequestError(f"{swept.name}: points are of several {what}s ({', '.join(values)}); {advice}")
    fitting = [each for each in known if not wanted.misses(each)]
    if not fitting:
        nearest = min(known, key=lambda each: (len(wanted.misses(each)), COSTS["accuracy"](each)))
        raise RequestError(
            f"{swept.name}: no point is as wanted; the nearest, {nearest.label}, {' and '.join(wanted.misses(nearest))}"
        )
    return min(fitting, key=lambda each: (COSTS[wanted.prefer](each), costs_of(each)))
