"""One process per engine: open it there, run it when asked, and never leave a process behind.

Where in memory a model and its runtime's buffers come to lie makes it up to a tenth faster or slower for as long as the
process lives. So an engine's process imports the runtime and no more, and for every model that is to be opened, a copy
of it is: that takes milliseconds, where importing takes seconds.

ONNX Runtime's threads keep spinning for some 40 ms after a run. Within one process that made PyTorch
four times slower than it is, so engines never share one; and since spinning threads take cores from
other processes too, a turn starts only after the engine before it has settled.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeAlias

from optimize.artifact import Artifact
from optimize.errors import OptimizeError, StageError, first_line
from optimize.evaluate.memory import peak_memory_bytes
from optimize.interfaces import Feed, Head, Params, Session
from optimize.measure import quiet
from optimize.measure.children import exit_like, exit_on_sigterm, follow_parent, ignore_interrupts, run_forked
from optimize.measure.kinds import KINDS
from optimize.measure.rounds import Turn
from optimize.request import HeadCode

PYTORCH, PYTORCH_FP32 = "pytorch", "pytorch-fp32"
"""What engines in PyTorch have for a target, which TARGETS lacks, and the engine that all others are compared with."""
SETTLE_SECONDS = 0.06
"""Longer than threads spin once their work is done."""
UNTIMED_PASSES = 1
"""Over a turn's feeds: a model that was just opened, or whose memory others have used meanwhile, begins slowly."""
GOODBYE_SECONDS = 5.0  # for a process to end of its own accord, before it is killed
RENEWED = 64
"""The code with which a copy ends that is to be followed by another."""


Pipe: TypeAlias = "Connection[tuple[str, Any], tuple[str, Any]]"
"""A word, and what belongs to it."""


@dataclass(frozen=True)
class Engine:
    """A model on a target; `target` is a name in TARGETS, or "pytorch" for the FP32 reference.

    `runtime` are the target's own settings. `code` is where a head of the user's own is; it makes what PyTorch runs.
    """

    name: str
    target: str
    artifact: Artifact
    head: str
    runtime: Params = field(default_factory=Params)
    code: HeadCode | None = None


@dataclass(frozen=True)
class Worker:
    """The parent's side of an engine's process."""

    engine: str
    process: BaseProcess
    connection: Pipe


def placer(target: str) -> Callable[[Feed, Any], Feed] | None:
    """The function that puts a feed into the memory of a target's device, if it has any."""
    if target == PYTORCH:
        from optimize.runtimes.pytorch import place

        return place
    from optimize.targets import TARGETS

    return TARGETS[target].place


def opener(target: str) -> Callable[[Path, int, Head, Any], Session]:
    """The function that opens a model folder on a target."""
    if target == PYTORCH:
        from optimize.runtimes.pytorch import open_torch

        return open_torch
    from optimize.targets import TARGETS

    return TARGETS[target].open


def time_runs(
    session: Session, feeds: Sequence[Feed], passes: int, *, clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Seconds of each run over `feeds`, `passes` times; garbage is not collected meanwhile."""
    seconds = []
    # A collection takes milliseconds and would fall into whichever run comes next.
    collecting = gc.isenabled()
    gc.disable()
    try:
        for _ in range(passes):
            for feed in feeds:
                start = clock()
                session(feed)
                seconds.append(clock() - start)
    finally:
        if collecting:
            gc.enable()
    return seconds


def time_turn(session: Session, feeds: Sequence[Feed], passes: int) -> Turn:
    """Time each run, and what other processes took of that time; the first runs, which are slow ones, are not timed."""
    time_runs(session, feeds, UNTIMED_PASSES)
    before = quiet.taken()
    seconds = time_runs(session, feeds, passes)
    return Turn(seconds, quiet.share_lost(before, quiet.taken(), sum(seconds)))


@contextlib.contextmanager
def open_workers(engines: Sequence[Engine], threads: int) -> Iterator[dict[str, Worker]]:
    """Start a process per engine, one after the other; end all of them whatever happens."""
    workers: dict[str, Worker] = {}
    try:
        for engine in engines:
            workers[engine.name] = _start(engine, threads)
        yield workers
    finally:
        for worker in workers.values():
            end(worker)


def ask(worker: Worker, request: str, payload: object = None) -> Any:
    """Send a request and wait for its answer; a worker that failed or died is a StageError."""
    try:
        with contextlib.suppress(ConnectionError):  # it has ended, and may have said why
            worker.connection.send((request, payload))
        answered, answer = worker.connection.recv()
    except (EOFError, OSError) as error:
        worker.process.join(GOODBYE_SECONDS)
        raise StageError(
            f"latency of '{worker.engine}': its process ended with code {worker.process.exitcode}; "
            "free memory, or measure fewer and smaller shapes"
        ) from error
    if answered == "error":
        raise StageError(f"latency of '{worker.engine}': {answer}")
    return answer


def run_settled(worker: Worker, passes: int) -> Turn:
    """Let the engine before settle, then run its feeds; seconds of each run, as the worker's clock saw them."""
    time.sleep(SETTLE_SECONDS)
    turn: Turn = ask(worker, "run", passes)
    return turn


def log_levels() -> dict[str, int]:
    """The levels of this process's loggers, where somebody set one."""
    levels = {}
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and logger.level != logging.NOTSET:
            levels[name] = logger.level
    return levels


def set_log_levels(levels: Mapping[str, int]) -> None:
    """Set the levels of loggers, whether their libraries are imported yet or not."""
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def serve(connection: Pipe, engine: Engine, threads: int, levels: Mapping[str, int]) -> None:
    """The life of an engine's process: one copy of it after the other answers. It logs as little as its parent."""
    set_log_levels(levels)
    ignore_interrupts()
    exit_on_sigterm()
    follow_parent()
    exit_like(_told(connection, lambda: _be_copied(connection, engine, threads)))


def _told(connection: Pipe, work: Callable[[], int]) -> int:
    """Do `work`, which gives an exit code; what it refuses is told to the parent, which raises it."""
    try:
        return work()
    except OptimizeError as error:
        with contextlib.suppress(ConnectionError):
            connection.send(("error", str(error)))
        return 0


def _be_copied(connection: Pipe, engine: Engine, threads: int) -> int:
    """Import all that opening the engine takes, and leave that to copies; the exit code of the last."""
    from optimize.heads import head_of, same_head

    with _opening_and_running():
        KINDS[engine.artifact.kind].load()
        if engine.code is not None and engine.target == PYTORCH:
            head = same_head(engine.head, engine.code)
        else:
            head = head_of(engine.head, engine.artifact.path, engine.code)
        open_it = partial(opener(engine.target), engine.artifact.path, threads, head, engine.runtime)
    while (code := run_forked(lambda: _told(connection, lambda: _answer(connection, engine, open_it)))) == RENEWED:
        pass
    return code


@contextlib.contextmanager
def _opening_and_running() -> Iterator[None]:
    """Say in our words whatever a runtime raises: ONNX Runtime's errors have no class in common."""
    try:
        yield
    except OptimizeError:
        raise
    except Exception as error:
        raise StageError(f"{type(error).__name__}: {first_line(error)}; look at the model's export") from error


def _answer(connection: Pipe, engine: Engine, open_it: Callable[[], Session]) -> int:
    """The life of a copy: answer until it is to be renewed, or the parent is gone; its exit code."""
    feeds: list[Feed] = []
    session: Session | None = None
    try:
        while True:
            request, payload = connection.recv()
            answer: object = None
            with _opening_and_running():
                if request == "open":
                    start = time.perf_counter()
                    session = open_it()
                    answer = time.perf_counter() - start
                elif request == "feeds":
                    feeds = payload
                elif request == "place":
                    feeds = _place(engine, payload)
                elif request == "run" and session is not None:
                    answer = time_turn(session, feeds, payload)
                elif request == "memory":
                    answer = peak_memory_bytes()
            connection.send(("done", answer))
            if request == "renew":
                return RENEWED
    except (EOFError, ConnectionError):
        return 0


def _place(engine: Engine, feeds: Sequence[Feed]) -> list[Feed]:
    place = placer(engine.target)
    if place is None:
        raise StageError(f"latency of '{engine.name}': target {engine.target} has no device to put texts on")
    return [place(feed, engine.runtime) for feed in feeds]


def _start(engine: Engine, threads: int) -> Worker:
    # A forked process would inherit this one's threads' locks, and what PyTorch and OpenVINO hold.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, engine, threads, log_levels()), daemon=True, name=engine.name)
    process.start()
    theirs.close()  # else the pipe would stay open, and a worker's death go unnoticed
    return Worker(engine=engine.name, process=process, connection=ours)


def end(worker: Worker) -> None:
    """End a worker's process; one that has ended already stays so."""
    worker.connection.close()
    worker.process.terminate()
    worker.process.join(GOODBYE_SECONDS)
    if worker.process.is_alive():
        worker.process.kill()
        worker.process.join(GOODBYE_SECONDS)
