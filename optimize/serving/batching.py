"""Questions of many callers, run together: those of similar length, as soon as there is a thread free for them.

While a batch runs, others come in; so under load batches fill by themselves, and without it nobody waits. Who waits
longest goes next, and takes along those whose length is nearest to its own, since a batch is padded to its longest. On
CPUs a batch computes a text little faster than the text alone, so what padding costs soon outweighs that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from optimize.errors import OptimizeError
from optimize.serving.limits import Limits
from optimize.serving.metrics import Metrics
from optimize.using.asking import Question
from optimize.using.model import Model


class FullError(OptimizeError):
    """As many wait as may."""


@dataclass(frozen=True, eq=False)
class Waiting:
    """A question, since when it waits, and where its answer goes."""

    question: Question
    answer: asyncio.Future[Any]
    since: float = field(default_factory=time.perf_counter)

    @property
    def tokens(self) -> int:
        """Those of its longest feature."""
        return max(feature.tokens for feature in self.question.features)

    @property
    def all_tokens(self) -> int:
        """Those of all its features."""
        return sum(feature.tokens for feature in self.question.features)

    @property
    def features(self) -> int:
        """How many it has."""
        return len(self.question.features)


class Batcher:
    """The queue of one model, and the threads that run it. All methods are called on the event loop's thread."""

    def __init__(self, model: Model, limits: Limits, metrics: Metrics, *, workers: int = 1) -> None:
        self.model, self.limits, self.metrics = model, limits, metrics
        self.waiting: list[Waiting] = []
        self.free = workers
        self.threads = ThreadPoolExecutor(workers, thread_name_prefix="run")
        self.timer: asyncio.TimerHandle | None = None

    async def answer(self, questions: Sequence[Question]) -> list[Any]:
        """The answers to the questions of one request. Raises FullError where too many wait already."""
        loop = asyncio.get_running_loop()
        waiting = [Waiting(question, loop.create_future()) for question in questions]
        total = sum(each.features for each in waiting)
        queued = sum(each.features for each in self.waiting)
        # A request that is larger than the queue is still taken where nothing waits.
        if queued and queued + total > self.limits.max_queue:
            raise FullError(f"the queue: {queued} texts wait, and {self.limits.max_queue} may; ask again later")
        self.waiting += waiting
        self._start()
        try:
            return await asyncio.gather(*(each.answer for each in waiting))
        finally:
            # A caller that left, or one of whose inputs failed, is not worked for any more.
            self.waiting = [each for each in self.waiting if each not in waiting or not each.answer.done()]

    def close(self) -> None:
        """End the threads, once what runs has run."""
        self.threads.shutdown(wait=True)

    def _start(self) -> None:
        """Hand batches to free threads, as long as there are both; one that may grow waits for its time."""
        while self.free and self.waiting:
            if (left := self._patience()) > 0:
                self.timer = self.timer or asyncio.get_running_loop().call_later(left, self._ring)
                break
            self.free -= 1
            batch = self._take()
            job = asyncio.get_running_loop().run_in_executor(self.threads, self._run, batch)
            job.add_done_callback(partial(self._finish, batch))
        self.metrics.queue.set(len(self.waiting))

    def _ring(self) -> None:
        self.timer = None
        self._start()

    def _patience(self) -> float:
        """Seconds that the first may still wait for others."""
        if sum(each.features for each in self.waiting) >= self.limits.max_batch:
            return 0.0
        return self.waiting[0].since + self.limits.max_wait_ms / 1000 - time.perf_counter()

    def _take(self) -> list[Waiting]:
        """The first one, and those of the nearest lengths that fit into a batch with it, with little padding."""
        first, *others = self.waiting
        batch, size, longest, total = [first], first.features, first.tokens, first.all_tokens
        for each in sorted(others, key=lambda other: abs(other.tokens - first.tokens)):
            size, longest, total = size + each.features, max(longest, each.tokens), total + each.all_tokens
            if size > self.limits.max_batch or size * longest > (1.0 + self.limits.max_padding) * total:
                break
            batch.append(each)
        chosen = set(map(id, batch))
        self.waiting = [each for each in others if id(each) not in chosen]
        return batch

    def _run(self, batch: Sequence[Waiting]) -> list[Any]:
        """On a thread: the answers of a batch, in its order."""
        began = time.perf_counter()
        features = [feature for each in batch for feature in each.question.features]
        outputs = iter(self.model.run(features, size=self.limits.max_batch))
        answers = [each.question.answer([next(outputs) for _ in each.question.features]) for each in batch]
        self.metrics.batches.observe(len(features))
        self.metrics.runs.observe(time.perf_counter() - began)
        for each in batch:
            self.metrics.waits.observe(began - each.since)
        return answers

    def _finish(self, batch: Sequence[Waiting], done: asyncio.Future[list[Any]]) -> None:
        """Hand answers to their callers, or what went wrong; those who left hear neither."""
        self.free += 1
        failure = done.exception()
        answers = [None] * len(batch) if failure else done.result()
        for each, answer in zip(batch, answers, strict=True):
            if each.answer.done():
                continue
            if failure:
                each.answer.set_exception(failure)
            else:
                each.answer.set_result(answer)
        self._start()
