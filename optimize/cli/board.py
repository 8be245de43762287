"""How far a sweep is: a table that redraws itself on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from optimize.cli.progress import BarProgress, HeedingProgress, PlainProgress
from optimize.cli.signals import heeded
from optimize.cli.verbosity import is_quiet
from optimize.interfaces import Progress, Silence

if TYPE_CHECKING:
    from rich.table import Table

    from optimize.sweep.sweeping import State, Watch
    from optimize.swept import Trial


@contextmanager
def board() -> Iterator[tuple[Watch, Progress]]:
    """What watches a sweep, and the progress of its tasks. Meanwhile no Ctrl-C is lost."""
    with _shown() as (watch, shown), heeded() as heed:
        heed.is_checked = True
        try:
            yield watch, HeedingProgress(shown, heed)
        finally:
            heed.is_checked = False


@contextmanager
def _shown() -> Iterator[tuple[Watch, Progress]]:
    if is_quiet():
        yield lambda _: None, Silence()
        return
    if not sys.stderr.isatty():
        lines = PlainProgress()
        yield Lines(lines), lines
        return
    import rich.progress
    from rich.console import Console, Group
    from rich.live import Live

    console = Console(stderr=True)
    columns = (*rich.progress.Progress.get_default_columns(), rich.progress.TimeElapsedColumn())
    bars = rich.progress.Progress(*columns, console=console)
    with Live(bars, console=console, transient=True, refresh_per_second=4) as live:
        yield lambda state: live.update(Group(table_of(state), bars)), BarProgress(bars)


class Lines:
    """A line whenever something is known of another point."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._said = ""

    def __call__(self, state: State) -> None:
        """Say how far the sweep is, if that has changed."""
        line = summary_of(state)
        if line != self._said:
            self._said = line
            self._progress.say(line)


def summary_of(state: State) -> str:
    """How far a sweep is, in a line."""
    known = [state.ledger.trials[point.id] for point in state.points if point.id in state.ledger.trials]
    measured, failed = (sum(each.outcome == kind for each in known) for kind in ("measured", "failed"))
    certified = sum(each.run is not None for each in known)
    said = f"sweep: {measured} of {len(state.points)} points measured"
    return said + f", {failed} failed" * bool(failed) + f", {certified} certified" * bool(certified)


def table_of(state: State) -> Table:
    """The models and targets with their points, and the best so far of each; below, what is being done."""
    from rich.table import Table

    minutes = (time.monotonic() - state.began) / 60.0
    done = f"{state.ended} of {state.tasks} tasks, {minutes:.0f} min" + f", {state.lost} lost" * bool(state.lost)
    table = Table(title=f"{summary_of(state)} ({done})", caption=_running(state), title_justify="left")
    for name in ("model", "target", "points", "measured", "failed", "fastest within limits so far"):
        table.add_column(name)
    groups: dict[tuple[str, str], list[Trial | None]] = {}
    for point in state.points:
        found = state.ledger.trials.get(point.id)
        groups.setdefault((point.model, point.form.target), []).append(found)
    for (model, target), trials in groups.items():
        known = [each for each in trials if each is not None]
        measured, failed = (sum(each.outcome == kind for each in known) for kind in ("measured", "failed"))
        table.add_row(model, target, str(len(trials)), str(measured), str(failed), _best(known))
    return table


def _best(trials: list[Trial]) -> str:
    fitting = [each for each in trials if each.meets_gates and each.speedup is not None]
    if not fitting:
        return "–"
    best = max(fitting, key=lambda each: each.speedup or 0.0)
    return f"{best.label}: {best.speedup:.2f}×, {best.relative_drop or 0.0:+.2%}, {best.size_ratio or 0.0:.3f}"


def _running(state: State) -> str:
    return "; ".join(f"{task} ({machine[:8]})" if machine else task for task, machine in state.running.items())
