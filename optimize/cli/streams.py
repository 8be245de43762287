"""stdout and stderr that outlive their readers: a closed pipe or a full disk behind them ends no work.

What cannot be written any more goes nowhere, and so does what libraries in C write there: the descriptor itself is
turned to the null device. What an encoding cannot say is written as an escape.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

NUMBERS = {"stdout": 1, "stderr": 2}
READER_LEFT = (errno.EPIPE, errno.ECONNRESET, errno.ESHUTDOWN)
"""Whoever read has seen enough, as `head` does; nothing is lost that anybody wants."""


class LastingFile(io.RawIOBase):
    """A descriptor whose first failure is kept in `failure`, and that takes everything after it."""

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.failure: OSError | None = None
        self._number = number

    def fileno(self) -> int:
        """The descriptor."""
        return self._number

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self._number)

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        """Write what can be written now, some of it at least."""
        while True:
            try:
                return os.write(self._number, data)
            except BlockingIOError:
                select.select([], [self._number], [])
            except OSError as error:
                self.failure = error
                _turn_to_null(self._number)


@contextmanager
def lasting_streams() -> Iterator[dict[str, LastingFile]]:
    """Let `sys.stdout` and `sys.stderr` outlive their readers; their files by name.

    A stream that is no file, as a test may have put in place, stays as it is.
    """
    _open_closed()
    before = {name: getattr(sys, name) for name in NUMBERS}
    files = {}
    for name, stream in before.items():
        number = _number(name, stream)
        if number is not None:
            files[name] = LastingFile(f"<{name}>", number)
            setattr(sys, name, _text(files[name], stream))
    try:
        yield files
    finally:
        for name, stream in before.items():
            getattr(sys, name).flush()
            setattr(sys, name, stream)


def _text(file: LastingFile, stream: TextIO | None) -> io.TextIOWrapper:
    """A text stream on a file, that encodes and flushes as another one does."""
    by_line, at_once, encoding = True, False, "utf-8"
    if isinstance(stream, io.TextIOWrapper):
        by_line, at_once, encoding = stream.line_buffering, stream.write_through, stream.encoding
        with contextlib.suppress(OSError):
            stream.flush()
    buffer = io.BufferedWriter(file)
    return io.TextIOWrapper(buffer, encoding, "backslashreplace", line_buffering=by_line, write_through=at_once)


def _number(name: str, stream: TextIO | None) -> int | None:
    """The descriptor of a stream; None where it has none. Python has no stream where the descriptor was closed."""
    if stream is None:
        return NUMBERS[name]
    try:
        return stream.fileno()
    except (OSError, ValueError, AttributeError):
        return None


def _open_closed() -> None:
    """Open standard descriptors that are closed, on the null device.

    Otherwise the next file that is opened, a model for instance, gets such a number, and whatever a library then
    writes to its stderr lands in the file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            _turn_to_null(number)


def _turn_to_null(number: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    if null == number:
        os.set_inheritable(number, True)  # as `dup2` makes it, so that processes of ours have it too
    else:
        os.dup2(null, number)
        os.close(null)
