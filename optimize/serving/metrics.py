"""What a server counts, for Prometheus; nothing of any text."""

from __future__ import annotations

from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
BATCHES = (1, 2, 4, 8, 16, 32, 64)
CONTENT_TYPE = CONTENT_TYPE_LATEST
OURS = "optimize"
"""What names begin with."""


class Metrics:
    """The counters of one server, which has a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        counter = partial(Counter, namespace=OURS, registry=self.registry)
        histogram = partial(Histogram, namespace=OURS, registry=self.registry)
        self.requests = counter("requests", "Requests by path and status.", ("path", "status"))
        self.seconds = histogram("request_seconds", "Seconds to an answer.", ("path",), buckets=SECONDS)
        self.batches = histogram("batch_features", "Features that ran together.", buckets=BATCHES)
        self.runs = histogram("run_seconds", "Seconds of a run.", buckets=SECONDS)
        self.waits = histogram("queue_seconds", "Seconds that a question waited for its run.", buckets=SECONDS)
        self.queue = Gauge("queue_features", "Features that wait.", namespace=OURS, registry=self.registry)

    def text(self) -> bytes:
        """Give all of it, as Prometheus reads it."""
        return generate_latest(self.registry)
