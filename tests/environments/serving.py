"""Servers of others as processes of their own, on a free port, which end with the block."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

STARTED_SECONDS = 300


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def serving(
    command: Sequence[object],
    log: Path,
    ready: str,
    environment: Mapping[str, str],
    cwd: Path | None = None,
    *,
    refusal: int | None = None,
) -> Iterator[None]:
    """A server that answers at the address `ready`; what it says goes into `log`.

    `refusal` is the status with which a server that is ready refuses to answer just anybody.
    """
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*map(str, command)],
            cwd=cwd,
            env={**os.environ, **environment},
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
        try:
            wait_until(ready, process, log, refusal)
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_until(ready: str, process: subprocess.Popen[Any], log: Path | None = None, refusal: int | None = None) -> None:
    """Wait until a server answers at the address `ready`, be it with the status `refusal`."""
    deadline = time.monotonic() + STARTED_SECONDS
    while not answers(ready, refusal):
        said = log.read_text()[-3000:] if log else ""
        assert process.poll() is None, said
        assert time.monotonic() < deadline, said
        time.sleep(0.2)


def answers(address: str, refusal: int | None = None) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=10):
            return True
    except urllib.error.HTTPError as error:
        return error.code == refusal
    except OSError:
        return False
