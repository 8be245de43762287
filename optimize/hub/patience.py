"""How long the Hub is waited for: huggingface_hub and datasets leave many of their questions without a time limit.

A Hub may take a connection and say nothing, or send a byte at a time, which no limit on a single read ever notices. So
small questions have an end whatever happens, and files one by what they carry.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from functools import cache, partial
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar

from optimize.interfaces import Progress

if TYPE_CHECKING:
    import requests

Answer = TypeVar("Answer")

CONNECT_SECONDS = 10.0
SILENT_SECONDS = 30.0
"""Longest silence in the middle of an answer."""
ANSWER_SECONDS = 60.0
"""Longest that a small question takes in all: a name looked up, a list of files, a config."""
WORDLESS_SECONDS = 3.0
"""Whoever waits longer is told what for."""
SLOWEST_BYTES_PER_SECOND = 1024.0


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


@cache
def limit_sessions() -> None:
    """From now on, no session that huggingface_hub or datasets opens in this process waits forever."""
    from huggingface_hub import configure_http_backend
    from huggingface_hub.utils import _http

    # huggingface_hub 0.36 cannot be asked for the factory that is in use, and a caller's own is not to be lost.
    configure_http_backend(partial(_limited, _http._GLOBAL_BACKEND_FACTORY))


def _limited(make: Callable[[], requests.Session]) -> requests.Session:
    session = make()
    for adapter in session.adapters.values():
        adapter.send = partial(_send, adapter.send)  # type: ignore[method-assign]
    return session


def _send(send: Callable[..., Any], *words: Any, timeout: object = None, **options: Any) -> Any:
    """What an adapter's `send` does, with a limit on silence where the caller sets none, and one on slowness."""
    response = send(*words, timeout=timeout or (CONNECT_SECONDS, SILENT_SECONDS), **options)
    response.raw.stream = partial(_stream, response.raw)
    return response


def _stream(raw: Any, amount: int, decode_content: bool | None = None) -> Iterator[bytes]:
    """A body as it arrives; requests.ReadTimeout where next to nothing does."""
    import requests
    from urllib3.exceptions import ReadTimeoutError

    began, received = time.monotonic(), 0
    try:
        # Unlike `read`, `read1` does not wait until all of the amount is there.
        while chunk := raw.read1(amount, decode_content=decode_content):
            yield chunk
            received += len(chunk)
            seconds = time.monotonic() - began
            if seconds > ANSWER_SECONDS and received < SLOWEST_BYTES_PER_SECOND * seconds:
                raise requests.ReadTimeout(f"{received} bytes in {seconds:.0f} s")
    except ReadTimeoutError as error:
        raise requests.ReadTimeout("it fell silent") from error
    finally:
        raw.close()
