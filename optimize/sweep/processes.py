"""Tasks in processes of this machine: so many at a time as asked for, and what is timed alone.

A process that dies takes its task alone with it, and is followed by another. None outlives this one.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeAlias

from optimize.errors import OptimizeError, first_line
from optimize.interfaces import Progress
from optimize.measure.children import exit_on_sigterm, follow_parent, ignore_interrupts
from optimize.measure.workers import log_levels, set_log_levels
from optimize.sweep.schedule import Ended, Machine
from optimize.sweep.tasks import Task
from optimize.sweep.work import Work, carry_out

HERE = "this machine"
STEP_SECONDS = 0.2
"""Between two signs of how far a task is: stages give one a batch, and each wakes this process."""
PATIENCE_SECONDS = 5.0
"""For a process to end, before it is killed."""
Pipe: TypeAlias = "Connection[Any, Any]"


@dataclass(frozen=True)
class Worker:
    """A process with its end of a pipe."""

    process: BaseProcess
    pipe: Pipe


class Told:
    """Progress that is told through a pipe."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._last = 0.0

    def step(self, name: str, done: int, total: int) -> None:
        """Tell how far `name` is, some times a second and at its end."""
        now = time.monotonic()
        if done >= total or now - self._last >= STEP_SECONDS:
            self._last = now
            self._pipe.send(("step", (name, done, total)))

    def say(self, line: str) -> None:
        """Tell a line."""
        self._pipe.send(("say", line))


@dataclass
class Processes:
    """A pool of processes on this machine; `describe` makes work of a task, and `progress` is told what they tell."""

    count: int
    describe: Callable[[Task], Work]
    progress: Progress
    idle: list[Worker] = field(default_factory=list)
    busy: dict[str, Worker] = field(default_factory=dict)

    def machines(self) -> Sequence[Machine]:
        """This one."""
        return [Machine(HERE, self.count)]

    def start(self, task: Task, machine: Machine) -> None:
        """Hand a task to a process that waits for one, or to a new one."""
        worker = self.idle.pop() if self.idle else _started()
        self.busy[task.id] = worker
        worker.pipe.send(self.describe(task))

    def wait(self) -> Sequence[Ended]:
        """Those that have ended; the first is waited for."""
        ended: list[Ended] = []
        while self.busy and not ended:
            pipes: dict[object, str] = {worker.pipe: name for name, worker in self.busy.items()}
            for pipe in wait([worker.pipe for worker in self.busy.values()]):
                found = self._heard(pipes[pipe])
                ended += [found] if found else []
        return ended

    def _heard(self, name: str) -> Ended | None:
        """What a process tells: how its task ended, or how far it is."""
        worker = self.busy[name]
        try:
            word, what = worker.pipe.recv()
        except (EOFError, ConnectionResetError):
            del self.busy[name]
            return Ended(name, "lost", reason=_how_ended(worker.process))
        if word == "step":
            self.progress.step(*what)
        elif word == "say":
            self.progress.say(what)
        else:
            self.idle.append(self.busy.pop(name))
            return Ended(name, word, value=what) if word == "done" else Ended(name, word, reason=what)
        return None

    def end(self) -> None:
        """End all processes, whatever they do."""
        workers = [*self.idle, *self.busy.values()]
        for worker in workers:
            worker.pipe.close()
            worker.process.terminate()
        for worker in workers:
            worker.process.join(PATIENCE_SECONDS)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()


@contextmanager
def processes(count: int, describe: Callable[[Task], Work], *, progress: Progress) -> Iterator[Processes]:
    """A pool that ends with the block."""
    pool = Processes(count, describe, progress)
    try:
        yield pool
    finally:
        pool.end()


def _started() -> Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, log_levels()), name="sweep")
    process.start()
    theirs.close()  # so that the other end's loss is seen
    return Worker(process, ours)


def _how_ended(process: BaseProcess) -> str:
    process.join(PATIENCE_SECONDS)
    code = process.exitcode
    if code is not None and code < 0:
        return f"its process was ended by signal {-code}"
    return f"its process ended with {code}"


def _work(pipe: Pipe, levels: Mapping[str, int]) -> None:
    """What a process does: one task after the other, until nobody hands it any. It logs as little as its parent."""
    set_log_levels(levels)
    ignore_interrupts()
    exit_on_sigterm()
    follow_parent()
    told = Told(pipe)
    while True:
        try:
            work = pipe.recv()
        except EOFError:
            return
        pipe.send(attempt(work, told))


def attempt(work: Work, progress: Progress) -> tuple[str, Any]:
    """Carry out a task: "done" with its result, or "failed" with the reason.

    What nobody foresaw is a reason too: a library that fails on one model has nothing to do with the next.
    """
    try:
        return "done", carry_out(work, progress)
    except OptimizeError as error:
        return "failed", " ".join(str(error).split())
    except Exception as error:  # noqa: BLE001  (told to the parent, which records it)
        return "failed", f"{type(error).__name__}: {first_line(error)}"
