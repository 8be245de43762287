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


def time_rounds(names: Sequence[str], feeds: int, *, run: Run, settings: Settings, seed: int) -> Rounds:
    """Seconds of all runs, by engine and round; in one round all engines run the same feeds.

    Rounds are added, for all engines, until the last engine has its minimum. A round in which others took more than
    `MOST_LOST` of some engine's time is repeated. Where too few stay undisturbed, all are kept, and that is said.
    """
    passes = {name: _passes(name, feeds, run=run, settings=settings) for name in names}
    order = random.Random(seed)
    quiet: list[dict[str, Turn]] = []
    disturbed: list[dict[str, Turn]] = []
    for _ in range(settings.rounds + MAX_EXTRA_ROUNDS):
        if len(quiet) >= settings.rounds and all(_enough([each[name] for each in quiet], settings) for name in names):
            break
        if len(disturbed) > MOST_REPEATED * settings.rounds:
            break
        # The same feeds for all: a round of longer texts is then as long a one for each engine.
        chosen = feeds_of_round(len(quiet), feeds, settings.rounds)
        turns = {name: run(name, chosen, passes[name]) for name in order.sample(list(names), len(names))}
        (quiet if max(turn.lost for turn in turns.values()) <= MOST_LOST else disturbed).append(turns)
    if len(quiet) >= settings.rounds:
        return Rounds(_by_engine(names, quiet))
    return Rounds(_by_engine(names, [*quiet, *disturbed]), _busy(disturbed, len(quiet)))


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


def _enough(turns: Sequence[Turn], settings: Settings) -> bool:
    """Whether an engine has its minimum of runs and of seconds."""
    runs = sum(len(turn.seconds) for turn in turns)
    seconds = sum(sum(turn.seconds) for turn in turns)
    return runs >= settings.min_runs and seconds >= settings.min_seconds
