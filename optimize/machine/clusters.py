"""Ray clusters by the words of `--on`, and being part of one for a while."""

from __future__ import annotations

import logging
import re
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from optimize.errors import RequestError, UnavailableError, brief, first_line

RAY, LOCAL, AUTO = "ray", "local", "auto"
CLIENT = "ray://"
PATIENCE = 20.0
"""Seconds that a cluster has to answer in."""


def read_place(on: str, *, client: bool) -> str:
    """The address of `ray` or `ray:ADDRESS`, as Ray takes it; of ray://HOST:PORT where a `client` from outside will do.

    Raises RequestError for other words.
    """
    words = f"write ray, ray:auto or ray:HOST:PORT{', or ray://HOST:PORT' if client else ''}"
    kind, _, address = on.partition(":")
    if kind != RAY:
        raise RequestError(f"--on: '{brief(on)}' is no place to work; {words}")
    if address.startswith("//") and not client:
        raise RequestError(
            f"--on: '{brief(on)}' is an address of Ray Client, which is not used here; run this on a machine of the "
            "cluster, with --on ray:auto or ray:HOST:PORT"
        )
    if address not in ("", LOCAL, AUTO) and not re.fullmatch(r"(//)?[^\s/]+:\d{1,5}", address):
        raise RequestError(f"--on: '{brief(on)}' names no address; {words}")
    return on if address.startswith("//") else address or LOCAL


@contextmanager
def joined(address: str) -> Iterator[list[dict[str, Any]]]:
    """Part of a cluster, or of one of this machine alone; what Ray says of its machines. Left at the end.

    Raises UnavailableError where there is no such cluster.
    """
    import ray

    before = signal.getsignal(signal.SIGTERM)
    try:
        _listens(address.removeprefix(CLIENT))
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.CRITICAL,
            **({"include_dashboard": False} if address == LOCAL else {}),
        )
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        raise UnavailableError(
            f"--on: no Ray cluster at '{address}' ({first_line(error)}); start one, or check the address"
        ) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)  # which Ray takes for itself
    try:
        yield alive()
    finally:
        ray.shutdown()


def alive() -> list[dict[str, Any]]:
    """What Ray says of each machine that is there now: `NodeID`, `Resources` and more."""
    import ray

    nodes: Any = ray.nodes
    return [node for node in nodes() if node["Alive"]]


def _listens(address: str) -> None:
    """Raise OSError where nothing listens at HOST:PORT, which Ray would look for many minutes at."""
    host, _, port = address.rpartition(":")
    if host:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE):
            pass
