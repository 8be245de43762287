"""The order in which engines are timed, free of processes and clocks.

Engines take turns in short rounds, each round in another order, so that a machine that slows
down, heats up or is shared slows all of them alike. What is left of it in a round hits every
engine of that round, and cancels in ratios.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil

from optimize.interfaces import Array

Run = Callable[[str, Sequence[int], int], list[float]]
"""Run an engine over the feeds of these indices, so many passes; seconds of each run."""

WARM_UP_PASSES = 3
MAX_EXTRA_ROUNDS = 100


@dataclass(frozen=True)
class Settings:
    """How long to measure: at least so many runs and seconds of each engine at each shape."""

    threads: int
    min_runs: int = 20
    min_seconds: float = 1.0
    rounds: int = 10


def time_rounds(names: Sequence[str], feeds: int, *, run: Run, settings: Settings, seed: int) -> dict[str, list[Array]]:
    """Seconds of all runs, by engine and round; in one round all engines run the same feeds.

    Rounds are added, for all engines, until the last engine has its minimum.
    """
    import numpy as np

    passes = {name: _passes(name, feeds, run=run, settings=settings) for name in names}
    times: dict[str, list[Array]] = {name: [] for name in names}
    order = random.Random(seed)
    for turn in range(settings.rounds + MAX_EXTRA_ROUNDS):
        if turn >= settings.rounds and all(_enough(times[name], settings) for name in names):
            break
        # The same feeds for all: a round of longer texts is then as long a one for each engine.
        chosen = feeds_of_round(turn, feeds, settings.rounds)
        for name in order.sample(list(names), len(names)):
            times[name].append(np.array(run(name, chosen, passes[name])))
    return times


def feeds_of_round(turn: int, feeds: int, rounds: int) -> list[int]:
    """Every `rounds`-th feed, from another one each round; the one feed where there is one."""
    return list(range(turn % rounds, feeds, rounds)) or [turn % feeds]


def _passes(name: str, feeds: int, *, run: Run, settings: Settings) -> int:
    """Warm an engine up, and say how many passes make its share of a round."""
    import numpy as np

    seconds = np.array(run(name, range(feeds), WARM_UP_PASSES)).reshape(WARM_UP_PASSES, feeds)
    # The first passes are slow ones, so of each feed the fastest counts.
    typical = max(float(seconds.min(axis=0).mean()), 1e-9)
    runs_a_round = max(settings.min_runs, settings.min_seconds / typical) / settings.rounds
    feeds_a_round = max(1.0, feeds / settings.rounds)
    return max(1, ceil(runs_a_round / feeds_a_round))


def _enough(rounds: Sequence[Array], settings: Settings) -> bool:
    """Whether an engine has its minimum of runs and of seconds."""
    runs = sum(len(times) for times in rounds)
    seconds = sum(float(times.sum()) for times in rounds)
    return runs >= settings.min_runs and seconds >= settings.min_seconds
