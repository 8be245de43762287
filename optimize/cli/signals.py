"""What ends a run from outside: Ctrl-C, SIGTERM and SIGHUP raise KeyboardInterrupt, and none of them is lost.

So all of them clean up alike: whatever is half written goes, and the processes of engines end.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
"""Windows lacks the last."""
IMPORTING = "<frozen importlib._bootstrap>"
"""The file of the frames that import a module."""
SAME_SECONDS = 1.0
"""A terminal that closes sends SIGHUP twice, once by the kernel and once by the shell."""


class Heed:
    """Whether one came, and which came first.

    Python forgets a KeyboardInterrupt where it comes up in a callback or a destructor, and some libraries take it for
    an error of their own: `check` raises it again. Where somebody is known to check (`is_checked`), one that comes
    while a module is imported waits for that, unless it comes again: extension modules that are left half imported can
    crash the process.
    """

    def __init__(self) -> None:
        self.first: signal.Signals | None = None
        self.is_checked = False
        self._since = 0.0

    def hear(self, number: int, frame: FrameType | None) -> None:
        """What a signal does."""
        again, now = self.first is not None, time.monotonic()
        if again and number != signal.SIGINT and now - self._since < SAME_SECONDS:
            return  # cleaning up has begun, and must not end half-way
        if not again:
            self.first, self._since = signal.Signals(number), now
        if again or not (self.is_checked and _imports(frame)):
            raise KeyboardInterrupt

    def check(self) -> None:
        """Raise what came, if somebody swallowed it."""
        if self.first is not None:
            raise KeyboardInterrupt


@contextmanager
def heeded() -> Iterator[Heed]:
    """Heed signals; within another `heeded`, it is the same one."""
    present = getattr(signal.getsignal(signal.SIGINT), "__self__", None)
    if isinstance(present, Heed):
        yield present
        return
    heed, before = Heed(), {}
    for number in [getattr(signal, name) for name in NAMES if hasattr(signal, name)]:
        # `nohup` has SIGHUP ignored, and means it. Shells ignore SIGINT for what runs in the background, which
        # `kill -INT` ends all the same.
        if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:
            before[number] = signal.signal(number, heed.hear)
    try:
        yield heed
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _imports(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == IMPORTING:
            return True
        frame = frame.f_back
    return False
