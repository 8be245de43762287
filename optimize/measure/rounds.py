"""The order in which engines are timed, free of processes and clocks.

Engines take turns in short rounds, each round in another order, so that a machine that slows
down, heats up or is shared slows all of them alike. What is left of it in a round hits every
engine of that round, and cancels in ratios.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import median

from optimize.interfaces import Array


@dataclass(frozen=True)
class Turn:
    """An engine's runs in a round: the seconds of each, and the share of that time which other processes took."""

    seconds: list[float]
    lost: float = 0.0


@dataclass(frozen=True)
class Rounds:
    """Seconds of all runs, by engine and round; `unreliable` says why they cannot be relied on, if they cannot."""

    times: dict[str, list[Array]]
    unreliable: str | None = None


Run = Callable[[str, Sequence[int], int], Turn]
"""Run an engine over the feeds of these indices, so many passes."""

WARM_UP_PASSES = 3
MAX_EXTRA_ROUNDS = 100
MOST_LOST = 0.05
"""Of an engine's time in a round: where others took more, the round is repeated."""
MOST_REPEATED = 2
"""Rounds that are repeated at most, for each that is wanted: a machine that stays busy is not waited for."""


@dataclass(frozen=True)
class Settings:
    """How long to measure: at least so many runs and seconds of each engine at each shape."""

    threads: int
    min_runs: int = 20
    min_seconds: float = 1.0
    rounds: int = 10


class Timing:
    """The rounds of one shape: in each, all engines run the same feeds, one after the other, in a random order.

    A round in which others took more than `MOST_LOST` of some engine's time is repeated. Where too few stay
    undisturbed, all are kept, and that is said.
    """

    def __init__(self, names: Sequence[str], feeds: int, *, run: Run, settings: Settings, seed: int) -> None:
        self._names, self._feeds, self._run, self._settings = names, feeds, run, settings
        self._order = random.Random(seed)
        self._passes = {name: _passes(name, feeds, run=run, settings=settings) for name in names}
        self._quiet: list[dict[str, Turn]] = []
        self._disturbed: list[dict[str, Turn]] = []

    @property
    def done(self) -> bool:
        """Whether the last engine has its minimum, or there is no hope of it."""
        rounds, extra = self._settings.rounds, len(self._quiet) + len(self._disturbed) - self._settings.rounds
        if len(self._quiet) >= rounds and all(self._enough(name) for name in self._names):
            return True
        return len(self._disturbed) > MOST_REPEATED * rounds or extra >= MAX_EXTRA_ROUNDS

    def turn(self) -> None:
        """One more round."""
        # The same feeds for all: a round of longer texts is then as long a one for each engine.
        chosen = feeds_of_round(len(self._quiet), self._feeds, self._settings.rounds)
        names = self._order.sample(list(self._names), len(self._names))
        turns = {name: self._run(name, chosen, self._passes[name]) for name in names}
        is_quiet = max(turn.lost for turn in turns.values()) <= MOST_LOST
        (self._quiet if is_quiet else self._disturbed).append(turns)

    def result(self) -> Rounds:
        """What was measured."""
        if len(self._quiet) >= self._settings.rounds:
            return Rounds(_by_engine(self._names, self._quiet))
        rounds = [*self._quiet, *self._disturbed]
        return Rounds(_by_engine(self._names, rounds), _busy(self._disturbed, len(self._quiet)))

    def _enough(self, name: str) -> bool:
        """Whether an engine has its minimum of runs and of seconds."""
        turns = [turns[name].seconds for turns in self._quiet]
        runs, seconds = sum(map(len, turns)), sum(map(sum, turns))
        return runs >= self._settings.min_runs and seconds >= self._settings.min_seconds


def _by_engine(names: Sequence[str], rounds: Sequence[Mapping[str, Turn]]) -> dict[str, list[Array]]:
    import numpy as np

    return {name: [np.array(turns[name].seconds) for turns in rounds] for name in names}


def _busy(disturbed: Sequence[Mapping[str, Turn]], quiet: int) -> str:
    """What was seen of a machine that is too busy."""
    lost = median(max(turn.lost for turn in turns.values()) for turns in disturbed)
    rounds = len(disturbed) + quiet
    return f"the machine was busy: in {len(disturbed)} of {rounds} rounds other processes took {lost:.0%} of the time"


def feeds_of_round(turn: int, feeds: int, rounds: int) -> list[int]:
    """Every `rounds`-th feed, from another one each round; the one feed where there is one."""
    return list(range(turn % rounds, feeds, rounds)) or [turn % feeds]


def _passes(name: str, feeds: int, *, run: Run, settings: Settings) -> int:
    """Warm an engine up, and say how many passes make its share of a round."""
    import numpy as np

    seconds = np.array(run(name, range(feeds), WARM_UP_PASSES).seconds).reshape(WARM_UP_PASSES, feeds)
    # The first passes are slow ones, so of each feed the fastest counts.
    typical = max(float(seconds.min(axis=0).mean()), 1e-9)
    runs_a_round = max(settings.min_runs, settings.min_seconds / typical) / settings.rounds
    feeds_a_round = max(1.0, feeds / settings.rounds)
    return max(1, ceil(runs_a_round / feeds_a_round))
