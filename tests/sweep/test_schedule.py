"""The loop that every pool shares: order, room, failures, losses; and ten thousand points on a hundred machines."""

from __future__ import annotations

import heapq
import random
import time
from dataclasses import dataclass, field
from itertools import count

import pytest

from optimize.sweep.schedule import LOSSES, Ended, Machine, carry_out
from optimize.sweep.tasks import Task

SECONDS = {"open": 9.0, "stage": 21.0, "reference": 6.0, "measure": 48.0}
"""What tasks of a checkpoint at distilbert-base's size took: its export and static INT8, six models measured."""


def stage(name: str, *needs: str) -> Task:
    return Task(name, "stage", name, (name,), needs=needs)


def measure(name: str, group: str = "g", **leaves: str) -> Task:
    return Task(name, "measure", name, tuple(leaves), leaves=leaves, alone=True, group=group)


@dataclass
class Simulated:
    """Machines without anything on them: tasks take the seconds that they are said to, by a clock that jumps."""

    all: list[Machine]
    seconds: dict[str, float] = field(default_factory=dict)
    lost: float = 0.0
    deaths: dict[str, float] = field(default_factory=dict)
    fails: dict[str, str] = field(default_factory=dict)
    now: float = 0.0
    ends: list[tuple[float, int, Task, Machine]] = field(default_factory=list)
    started: list[tuple[str, str, float]] = field(default_factory=list)
    busy: float = 0.0
    dice: random.Random = field(default_factory=lambda: random.Random(0))
    numbers: count[int] = field(default_factory=count)

    def machines(self):
        return [each for each in self.all if self.deaths.get(each.name, float("inf")) > self.now]

    def start(self, task, machine):
        running = [each for _, _, each, where in self.ends if where == machine]
        assert not (task.alone and running), "what is alone is begun beside nothing"
        assert not any(each.alone for each in running), "nothing is begun beside what is alone"
        assert len(running) < machine.slots
        seconds = self.seconds.get(task.id, SECONDS[task.kind])
        self.started.append((task.id, machine.name, self.now))
        heapq.heappush(self.ends, (self.now + seconds, next(self.numbers), task, machine))

    def wait(self):
        end, _, task, machine = heapq.heappop(self.ends)
        death = self.deaths.get(machine.name, float("inf"))
        if death < end:
            self.now = max(self.now, death)
            return [Ended(task.id, "lost", reason="the machine is gone", machine_gone=True)]
        self.now = end
        if self.dice.random() < self.lost:
            return [Ended(task.id, "lost", reason="the worker died")]
        if task.id in self.fails:
            return [Ended(task.id, "failed", reason=self.fails[task.id])]
        self.busy += self.seconds.get(task.id, SECONDS[task.kind]) * (machine.slots if task.alone else 1)
        return [Ended(task.id, "done", value=task)]


def run(tasks, pool, **others):
    """Carry tasks out; how each ended in the end, and what was left."""
    ends: dict[str, Ended] = {}

    def note(task, ended):
        if ended.outcome != "lost":
            assert task.id not in ends, "each task ends once"
            ends[task.id] = ended

    left = carry_out(tasks, pool, on_end=note, clock=lambda: pool.now, **others)
    return ends, left


def test_a_task_begins_once_all_that_it_needs_is_done():
    pool = Simulated([Machine("one", 4)])
    ends, left = run([stage("a"), stage("b", "a"), stage("c", "a"), measure("m", b="b", c="c")], pool)
    assert [name for name, _, _ in pool.started] == ["a", "b", "c", "m"]
    assert {each.outcome for each in ends.values()} == {"done"}
    assert left == []


def test_what_fails_takes_with_it_what_needs_it_and_no_more():
    pool = Simulated([Machine("one", 1)], fails={"b": "no"})
    tasks = [stage("a"), stage("b", "a"), stage("c", "b"), stage("d", "a"), measure("m", p="c", q="d")]
    ends, _ = run(tasks, pool)
    assert {name: each.outcome for name, each in ends.items()} == {
        "a": "done",
        "b": "failed",
        "c": "failed",
        "d": "done",
        "m": "done",
    }
    assert ends["c"].reason == "no"
    assert ends["m"].value.points == ("q",)  # the other one's stages failed


def test_nothing_is_measured_where_all_stages_failed():
    pool = Simulated([Machine("one", 1)], fails={"a": "no"})
    ends, _ = run([stage("a"), measure("m", p="a")], pool)
    assert ends["m"].outcome == "failed"
    assert [name for name, _, _ in pool.started] == ["a"]


def test_what_is_alone_is_alone():
    pool = Simulated([Machine("one", 3)], seconds={"a": 5.0, "b": 50.0})
    tasks = [stage("a"), stage("b"), stage("c"), measure("m", p="a"), stage("d", "c")]
    ends, _ = run(tasks, pool)  # `Simulated` refuses what is not alone
    assert len(ends) == 5


def test_a_lost_task_is_begun_again_and_at_last_given_up():
    pool = Simulated([Machine("one", 1)], lost=1.0)
    ends, _ = run([stage("a")], pool)
    assert len(pool.started) == LOSSES
    assert (ends["a"].outcome, ends["a"].reason) == ("failed", f"lost {LOSSES} times: the worker died")


def test_what_goes_with_its_machine_is_not_to_blame():
    machines = [Machine(f"m{number}", 1) for number in range(LOSSES + 2)]
    deaths = {each.name: 1.0 + number for number, each in enumerate(machines[:-1])}
    pool = Simulated(machines, deaths=deaths, seconds={"a": 100.0})
    ends, _ = run([stage("a")], pool)
    assert ends["a"].outcome == "done"
    assert len(pool.started) == LOSSES + 2


def test_a_group_is_measured_on_machines_of_one_kind():
    machines = [Machine("x1", 1, "x"), Machine("y1", 1, "y"), Machine("y2", 1, "y")]
    pool = Simulated(machines)
    run([measure(f"m{number}", p=f"s{number}") for number in range(6)] + [stage(f"s{n}") for n in range(6)], pool)
    kinds = {where[0] for name, where, _ in pool.started if name.startswith("m")}
    assert len(kinds) == 1


def test_where_a_kind_is_gone_its_group_goes_on_elsewhere():
    machines = [Machine("x1", 1, "x"), Machine("y1", 1, "y")]
    pool = Simulated(machines, deaths={"x1": 10.0}, seconds={"m0": 5.0, "m1": 30.0})
    tasks = [stage("a"), measure("m0", p="a"), measure("m1", q="a")]
    pool.seconds["a"] = 1.0
    ends, _ = run(tasks, pool)
    assert {each.outcome for each in ends.values()} == {"done"}


def test_nothing_is_begun_once_time_is_over():
    pool = Simulated([Machine("one", 1)], seconds={"a": 10.0, "b": 10.0, "c": 10.0})
    ends, left = run([stage("a"), stage("b", "a"), stage("c", "b"), measure("m", p="c")], pool, until=15.0)
    assert set(ends) == {"a", "b"}
    assert {each.id for each in left} == {"c", "m"}


@pytest.mark.parametrize(("lost", "dead"), [(0.0, 0), (0.05, 0), (0.0, 5)])
def test_ten_thousand_points_on_a_hundred_machines(lost, dead):
    """The loop adds at most 5 % to what the work takes, in simulated time and of its own, whatever is lost."""
    tasks, points = [], 10_000
    for model in range(100):
        tasks.append(Task(f"open{model}", "open", "", ("",)))
        tasks.append(Task(f"export{model}", "stage", "", ("",), needs=(f"open{model}",)))
        for point in range(points // 100):
            tasks.append(Task(f"s{model}.{point}", "stage", "", ("",), needs=(f"export{model}",)))
        for batch in range(0, points // 100, 5):
            leaves = {f"p{model}.{each}": f"s{model}.{each}" for each in range(batch, batch + 5)}
            group = f"g{model}"
            tasks.append(
                Task(f"m{model}.{batch}", "measure", "", tuple(leaves), leaves=leaves, alone=True, group=group)
            )
    deaths = {f"n{number}": 100.0 * (number + 1) for number in range(dead)}
    pool = Simulated([Machine(f"n{number}", 4, f"k{number % 2}") for number in range(100)], lost=lost, deaths=deaths)
    begun = time.perf_counter()
    ends, left = run(tasks, pool)
    own = time.perf_counter() - begun
    failed = sum(each.outcome == "failed" for each in ends.values())
    # By slots; what is lost with its worker is done twice, and by then the dead machines had done next to nothing.
    ideal = pool.busy / (4 * (100 - dead)) * (1.0 + lost)
    assert left == []
    assert failed <= (0 if lost == 0.0 else 0.002 * len(tasks))
    # What is lost at the very end is begun again when nothing is left to do beside it.
    assert pool.now <= 1.05 * ideal + (SECONDS["measure"] if lost else 0.0)
    assert own <= 0.05 * pool.now
