"""What a server takes on, and for how long."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds of requests and batches.

    `max_batch` features run at a time, with at most `max_padding` of their own tokens as padding beside them; one waits
    `max_wait_ms` for others to run with, even if nothing else runs.
    `max_queue` features wait at most. `body_seconds` are what a request has to be sent in, and `grace_seconds` are
    what answers have to be finished in once the server ends.
    """

    max_batch: int = 8
    max_padding: float = 0.1
    max_wait_ms: float = 0.0
    max_queue: int = 256
    max_body_bytes: int = 2**20
    body_seconds: float = 30.0
    max_texts: int = 64
    max_characters: int = 100_000
    grace_seconds: float = 30.0
