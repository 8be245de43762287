"""NNCF kept quiet: its bars go to our progress, its log is read and not printed, and its models run on our Core."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from types import ModuleType
from typing import Protocol

from optimize.interfaces import Progress
from optimize.runtimes.openvino import core, load_nncf, load_openvino

REVERTED = "Reverted "
"""How the log line begins that operators went back to float; their names follow, one a line."""


class Track(Protocol):
    """NNCF's `track`: what it draws a bar of, as far as this module uses it. `done` and `reported_to` are ours."""

    sequence: Iterable[object] | None
    total: float | None
    weights: object
    description: str
    done: float
    reported_to: Progress


@contextmanager
def heard(progress: Progress, listen: Callable[[list[str]], None] | None = None) -> Iterator[ModuleType]:
    """The module `nncf`; `listen` is called with the operators of each step that accuracy control takes back to float.

    NNCF 3.4 draws bars with rich on a console of its own, makes a Core for each model that it runs (see `core`), and
    offers no way to hand it others, so the methods of its `track` and OpenVINO's Core are replaced meanwhile. What
    accuracy control reverts stands in its log alone.
    """
    nncf = load_nncf()
    from nncf.common.logging.track_progress import track

    one, reader, logger = core(), _LogReader(listen), logging.getLogger("nncf")
    with (
        _replaced(track, __iter__=_iterate, __enter__=_enter, __exit__=_exit, update=_update),
        _replaced(load_openvino(), Core=lambda: one, compile_model=one.compile_model),
    ):
        track.reported_to = progress
        logger.addHandler(reader)
        try:
            yield nncf
        finally:
            logger.removeHandler(reader)
            del track.reported_to


@contextmanager
def _replaced(owner: object, **attributes: object) -> Iterator[None]:
    originals = {name: getattr(owner, name) for name in attributes}
    try:
        for name, value in attributes.items():
            setattr(owner, name, value)
        yield
    finally:
        for name, value in originals.items():
            setattr(owner, name, value)


class _LogReader(logging.Handler):
    def __init__(self, listen: Callable[[list[str]], None] | None) -> None:
        super().__init__(logging.INFO)
        self._listen = listen

    def emit(self, record: logging.LogRecord) -> None:
        """Pass on the names below a line that says that operators were reverted."""
        first, *names = record.getMessage().splitlines()
        if self._listen and first.startswith(REVERTED):
            self._listen([name.strip() for name in names if name.strip()])


def _enter(self: Track) -> Track:
    self.done = 0
    return self


def _exit(self: Track, *_: object) -> None:
    # Work that stopped early, such as texts that are not needed, counts as done.
    if self.done and self.done < _total(self):
        _update(self, _total(self) - self.done)


def _update(self: Track, advance: float, **_: object) -> None:
    self.done += advance
    self.reported_to.step(str(self.description).lower(), round(self.done), round(_total(self)))


def _iterate(self: Track) -> Iterator[object]:
    _enter(self)
    try:
        for item in () if self.sequence is None else self.sequence:
            yield item
            _update(self, 1)
    finally:
        _exit(self)


def _total(self: Track) -> float:
    if self.weights is None and isinstance(self.sequence, Sized):
        return len(self.sequence)
    return float(self.total or max(self.done, 1))
