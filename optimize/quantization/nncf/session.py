"""NNCF kept quiet: its bars go to our progress, its log is heard and not printed, and its models run on our Core."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from optimize.interfaces import Progress
from optimize.runtimes.openvino import core, load_nncf, load_openvino

REVERTED = "Reverted "


@contextmanager
def heard(progress: Progress, listen: Callable[[list[str]], None] | None = None) -> Iterator[Any]:
    """The module `nncf`; `listen` is told the operators of each step that accuracy control takes back to float.

    NNCF 3.4 draws bars with rich on a console of its own, makes a Core for each model that it runs (see `core`), and
    offers no way to hand it others, so the methods of its `track` and OpenVINO's Core are replaced meanwhile. What
    accuracy control reverts it only tells its log.
    """
    nncf = load_nncf()
    from nncf.common.logging.track_progress import track

    one, ear, logger = core(), _Ear(listen), logging.getLogger("nncf")
    with (
        _replaced(track, __iter__=_iterate, __enter__=_enter, __exit__=_exit, update=_update),
        _replaced(load_openvino(), Core=lambda: one, compile_model=one.compile_model),
    ):
        track.reported_to = progress
        logger.addHandler(ear)
        try:
            yield nncf
        finally:
            logger.removeHandler(ear)
            del track.reported_to


@contextmanager
def _replaced(owner: Any, **attributes: Any) -> Iterator[None]:
    originals = {name: getattr(owner, name) for name in attributes}
    try:
        for name, value in attributes.items():
            setattr(owner, name, value)
        yield
    finally:
        for name, value in originals.items():
            setattr(owner, name, value)


class _Ear(logging.Handler):
    def __init__(self, listen: Callable[[list[str]], None] | None) -> None:
        super().__init__(logging.INFO)
        self._listen = listen

    def emit(self, record: logging.LogRecord) -> None:
        """Pass on the names below a line that tells of reverted operators."""
        first, *names = record.getMessage().splitlines()
        if self._listen and first.startswith(REVERTED):
            self._listen([name.strip() for name in names if name.strip()])


def _enter(self: Any) -> Any:
    self.done = 0
    return self


def _exit(self: Any, *_: object) -> None:
    if self.done and self.done < _total(self):
        _update(self, _total(self) - self.done)


def _update(self: Any, advance: float, **_: object) -> None:
    self.done += advance
    self.reported_to.step(str(self.description).lower(), round(self.done), round(_total(self)))


def _iterate(self: Any) -> Iterator[Any]:
    with self:
        for item in self.sequence:
            yield item
            _update(self, 1)


def _total(self: Any) -> float:
    if self.weights is None and self.sequence is not None and hasattr(self.sequence, "__len__"):
        return len(self.sequence)
    return float(self.total or max(self.done, 1))
