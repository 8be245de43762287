"""How long the Hub is waited for: huggingface_hub and datasets leave many of their questions without a time limit.

A Hub may take a connection and say nothing, or send a byte at a time, which no limit on a single read ever notices. So
small questions have an end whatever happens, and files one by what they carry.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from threading import Thread
from typing import TypeVar

from optimize.interfaces import Progress

Answer = TypeVar("Answer")

CONNECT_SECONDS = 10.0
SILENT_SECONDS = 30.0
"""Longest silence in the middle of an answer."""
ANSWER_SECONDS = 60.0
"""Longest that a small question takes in all: a name looked up, a list of files, a config."""
WORDLESS_SECONDS = 3.0
"""Whoever waits longer is told what for."""
SLOWEST_BYTES_PER_SECOND = 1024.0
PAUSE_SECONDS = 10.0
"""Longest that a Hub may have huggingface_hub sleep before it asks again."""


def answer(question: Callable[[], Answer], *, about: str, progress: Progress, whom: str = "the Hub") -> Answer:
    """Ask a small question; TimeoutError after a minute, wherever it hangs: in a name server, a proxy or the Hub."""
    future: Future[Answer] = Future()

    def ask() -> None:
        try:
            future.set_result(question())
        except BaseException as error:  # noqa: BLE001  (raised by whoever waits)
            future.set_exception(error)

    # A daemon: what never gets its answer is not to keep the process alive.
    Thread(target=ask, daemon=True).start()
    if not wait([future], min(WORDLESS_SECONDS, ANSWER_SECONDS)).done:
        progress.say(f"waiting for {whom}: {about}, {ANSWER_SECONDS:.0f} s at most")
        if not wait([future], max(0.0, ANSWER_SECONDS - WORDLESS_SECONDS)).done:
            raise TimeoutError(f"no answer within {ANSWER_SECONDS:.0f} s")
    return future.result()


def in_time(body: Iterable[bytes], breaks: type[Exception]) -> Iterator[bytes]:
    """A body as it arrives; TimeoutError where next to nothing does.

    Where a body `breaks` off, huggingface_hub asks for the rest, and forgets how often it did once a byte came. That
    has no end either, so each answer has to carry something. TimeoutError is no error after which it goes on.
    """
    began, received = time.monotonic(), 0

    def check(least: float, error: Exception | None = None) -> None:
        seconds = time.monotonic() - began
        if seconds >= least and received < SLOWEST_BYTES_PER_SECOND * max(seconds, 1.0):
            raise TimeoutError(f"{received} bytes in {seconds:.0f} s") from error

    try:
        for chunk in body:
            yield chunk
            received += len(chunk)
            check(ANSWER_SECONDS)
    except breaks as error:
        check(0.0, error)
        raise
