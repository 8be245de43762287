"""Which task runs where, and when: the loop that processes, a Ray cluster and a simulation share. It computes nothing.

Who carries tasks out is a `Pool`. A task that is alone takes a machine on which nothing runs, and nothing is begun
beside it; no machine is kept empty for it while there is something to build. Tasks of a group that are alone go to
machines of one kind, so that their times can be compared. What was lost with a worker is begun anew.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from optimize.sweep.tasks import Task

LOSSES = 3
"""How often a task may be lost where its machine lives on: one that kills every worker must not go round for ever."""


@dataclass(frozen=True)
class Machine:
    """Where tasks run: `slots` at a time. Machines of one `kind` have the same processor and libraries."""

    name: str
    slots: int
    kind: str = ""


@dataclass(frozen=True)
class Ended:
    """How a task ended: with a value, with the reason of its failure, or lost, for a reason, maybe with its machine."""

    task: str
    outcome: Literal["done", "failed", "lost"]
    value: Any = None
    reason: str = ""
    machine_gone: bool = False


class Pool(Protocol):
    """Who carries tasks out."""

    def machines(self) -> Sequence[Machine]:
        """The machines that are there now."""

    def start(self, task: Task, machine: Machine) -> None:
        """Begin a task on a machine, and return at once."""

    def wait(self) -> Sequence[Ended]:
        """Those that have ended, waiting for the first one; empty where only the machines may have changed."""


@dataclass
class Queue:
    """What is left to do: tasks by how many others they wait for, and those that could begin."""

    tasks: dict[str, Task]
    waits: dict[str, int] = field(default_factory=dict)
    behind: dict[str, list[str]] = field(default_factory=dict)
    ready: deque[str] = field(default_factory=deque)
    alone: deque[str] = field(default_factory=deque)
    failed: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, tasks: Iterable[Task]) -> Queue:
        """All of them, none begun."""
        queue = cls({task.id: task for task in tasks})
        for task in queue.tasks.values():
            before = {*task.needs, *task.leaves.values()}
            queue.waits[task.id] = len(before)
            for each in before:
                queue.behind.setdefault(each, []).append(task.id)
        for task in queue.tasks.values():
            if not queue.waits[task.id]:
                queue.add(task.id)
        return queue

    def add(self, task: str, *, first: bool = False) -> None:
        """Let a task begin as soon as there is room, before all others or after them."""
        queue = self.alone if self.tasks[task].alone else self.ready
        (queue.appendleft if first else queue.append)(task)

    def end(self, task: str, reason: str = "") -> list[Ended]:
        """Note that a task has ended, with the reason if it failed; the tasks that fail with it."""
        if reason:
            self.failed[task] = reason
        fallen = []
        for each in self.behind.get(task, ()):
            self.waits[each] -= 1
            if self.waits[each]:
                continue
            why = self._why_not(each)
            if why is None:
                self.add(each)
            else:
                fallen += [Ended(each, "failed", reason=why), *self.end(each, why)]
        return fallen

    def _why_not(self, name: str) -> str | None:
        """Why a task cannot begin; points whose stages failed drop out, and None is left where one can be measured."""
        task = self.tasks[name]
        for each in task.needs:
            if each in self.failed:
                return self.failed[each]
        left = tuple(each for each in task.points if task.leaves.get(each) not in self.failed)
        if not left:
            return self.failed[task.leaves[task.points[0]]]
        self.tasks[name] = replace(task, points=left)
        return None


@dataclass
class Running:
    """What runs where."""

    pool: Pool
    queue: Queue
    where: dict[str, str] = field(default_factory=dict)
    busy: dict[str, int] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)

    def begin(self, task: str, machine: Machine) -> None:
        """Begin a task on a machine."""
        known = self.queue.tasks[task]
        self.where[task] = machine.name
        self.busy[machine.name] = machine.slots if known.alone else self.busy.get(machine.name, 0) + 1
        if known.alone:
            self.kinds.setdefault(known.group, machine.kind)
        self.pool.start(known, machine)

    def fill(self) -> None:
        """Begin all that there is room for: what is alone first, where a machine happens to be idle."""
        machines = self.pool.machines()
        kinds = {each.kind for each in machines}
        for machine in machines:
            if not self.busy.get(machine.name):
                found = self._alone_for(machine, kinds)
                if found is not None:
                    self.queue.alone.remove(found)
                    self.begin(found, machine)
            while self.queue.ready and self.busy.get(machine.name, 0) < machine.slots:
                self.begin(self.queue.ready.popleft(), machine)

    def _alone_for(self, machine: Machine, kinds: set[str]) -> str | None:
        """A task for an idle machine: of a group that its kind measures, else of one whose kind is open, or gone.

        The later a group gets its kind, the more evenly they are spread.
        """
        free = None
        for each in self.queue.alone:
            kind = self.kinds.get(self.queue.tasks[each].group)
            if kind == machine.kind:
                return each
            if free is None and kind not in kinds:
                free = each
        if free is not None:
            self.kinds[self.queue.tasks[free].group] = machine.kind
        return free

    def end(self, ended: Ended) -> list[Ended]:
        """Free what an ended task held; the ends that follow of it. A lost task waits for its turn again."""
        task = self.queue.tasks[ended.task]
        machine = self.where.pop(ended.task)
        self.busy[machine] = 0 if task.alone else self.busy[machine] - 1
        if ended.outcome == "lost":
            self.lost[ended.task] = self.lost.get(ended.task, 0) + (not ended.machine_gone)
            if self.lost[ended.task] < LOSSES:
                self.queue.add(ended.task, first=True)  # at the end, nothing would be left to do beside it
                return [ended]
            ended = Ended(ended.task, "failed", reason=f"lost {LOSSES} times: {ended.reason}")
        return [ended, *self.queue.end(ended.task, ended.reason)]


def carry_out(
    tasks: Sequence[Task],
    pool: Pool,
    *,
    begun: Callable[[Task, str], None] = lambda *_: None,
    on_end: Callable[[Task, Ended], None],
    until: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> list[Task]:
    """Carry out tasks, and give those that are left. `on_end` hears of each end, also of what is lost.

    From `until` on, by the clock, nothing new is begun; what runs then is waited for.
    """

    def may_begin() -> bool:
        return until is None or clock() < until

    queue = Queue.of(tasks)
    running = Running(pool, queue)
    known: set[str] = set()
    while True:
        if may_begin():
            running.fill()
        for each in running.where.keys() - known:
            begun(queue.tasks[each], running.where[each])
        known = set(running.where)
        if not running.where and (not (queue.ready or queue.alone) or not may_begin()):
            break
        for ended in pool.wait():
            for end in running.end(ended):
                on_end(queue.tasks[end.task], end)
        known &= set(running.where)
    return _left(queue)


def _left(queue: Queue) -> list[Task]:
    """Tasks that were never begun: those that could, and those behind them."""
    found: dict[str, Task] = {}
    waiting = [*queue.ready, *queue.alone]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = queue.tasks[name]
            waiting += queue.behind.get(name, ())
    return list(found.values())
