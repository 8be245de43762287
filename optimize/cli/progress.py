"""How far long work is, on stderr: bars on a terminal, plain lines elsewhere; and no Ctrl-C is lost meanwhile."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from optimize.cli.signals import Heed, heeded
from optimize.cli.verbosity import is_quiet
from optimize.interfaces import Progress, Silence

if TYPE_CHECKING:
    import rich.progress

PLAIN_SECONDS = 10.0


@contextmanager
def progress() -> Iterator[Progress]:
    """What shows how far the work is. Meanwhile no Ctrl-C is lost, nor what ends a run like it."""
    with bars_or_lines() as shown, heeded() as heed:
        heed.is_checked = True
        try:
            yield HeedingProgress(shown, heed)
        finally:
            heed.is_checked = False


class HeedingProgress:
    """Progress that raises a KeyboardInterrupt again which somebody swallowed, at the next sign of it."""

    def __init__(self, shown: Progress, heed: Heed) -> None:
        self._shown = shown
        self._heed = heed

    def step(self, name: str, done: int, total: int) -> None:
        """Show how far `name` is."""
        self._heed.check()
        self._shown.step(name, done, total)

    def say(self, line: str) -> None:
        """Show a line."""
        self._heed.check()
        self._shown.say(line)


@contextmanager
def bars_or_lines() -> Iterator[Progress]:
    """Bars on a terminal; elsewhere a plain line on what takes long, every ten seconds. With `--quiet`, nothing."""
    if is_quiet():
        yield Silence()
        return
    if not sys.stderr.isatty():
        yield PlainProgress()
        return
    import rich.progress
    from rich.console import Console

    columns = (*rich.progress.Progress.get_default_columns(), rich.progress.TimeElapsedColumn())
    with rich.progress.Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        yield BarProgress(bars)


class BarProgress:
    """One bar for each kind of work, begun again when the work is."""

    def __init__(self, bars: rich.progress.Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, rich.progress.TaskID] = {}

    def step(self, name: str, done: int, total: int) -> None:
        """Move the bar of `name`."""
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=total)
        self._bars.update(self._tasks[name], completed=done, total=total)
        if done >= total:
            self._bars.remove_task(self._tasks.pop(name))

    def say(self, line: str) -> None:
        """Print a line above the bars."""
        self._bars.console.print(line, highlight=False, markup=False)


class PlainProgress:
    """Lines for logs."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}
        self._first: dict[str, tuple[float, int]] = {}

    def step(self, name: str, done: int, total: int) -> None:
        """Print how far `name` is and how long the rest takes at that pace, if the last line is ten seconds old."""
        now = time.monotonic()
        began, before = self._first.setdefault(name, (now, done))
        if now - self._last.setdefault(name, now) >= PLAIN_SECONDS:
            self._last[name] = now
            left = f", {_duration((now - began) / (done - before) * (total - done))} left" if done > before else ""
            print(f"  {name}: {done} of {total}{left}", file=sys.stderr, flush=True)
        if done >= total:
            self._last.pop(name, None)
            self._first.pop(name, None)

    def say(self, line: str) -> None:
        """Print a line."""
        print(line, file=sys.stderr, flush=True)


def _duration(seconds: float) -> str:
    """Seconds in the unit that one would say it in."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
