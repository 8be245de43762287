"""A sweep from its file to its record: points planned, built and measured on tuning data; the best of each certified.

Choosing among many flatters what is chosen. So each model and target has one point certified, as a run of its own, on
data that nothing was chosen by.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from functools import cache as remembered
from pathlib import Path
from typing import Literal

from optimize.errors import RequestError, UnavailableError
from optimize.files.events import Events
from optimize.files.putting import put_file
from optimize.interfaces import Head, Progress
from optimize.manifest import StageRecord
from optimize.planning import Plan, inspected, make_plan
from optimize.refusals import check_libraries, check_place, check_runs, why_not_for
from optimize.report.html.sweep import render_sweep
from optimize.sweep.front import chosen_of, with_front
from optimize.sweep.ledger import ASKED, EVENTS, TRIALS, Ledger, key_of, open_ledger
from optimize.sweep.matrix import Matrix, Point, points_of, read_matrix
from optimize.sweep.schedule import Ended, Pool, carry_out
from optimize.sweep.study import askers_of
from optimize.sweep.tasks import Task, certifying, tasks_of
from optimize.sweep.work import Part, Result, Work, unpack_run
from optimize.swept import FILE, PAGE, RUNS, Swept, Trial, read, write

Opened = Callable[[Callable[[Task], Work]], AbstractContextManager[Pool]]
"""What opens a pool, given what makes work of a task."""
NOT_BEGUN = "the time was over; go on with --resume"


@dataclass(frozen=True)
class Planned:
    """A sweep that can be carried out: its points, the reasons of those that cannot be, and the heads of its models.

    Where a search chooses points, there are none yet. With `retime`, what a busy machine timed is measured again.
    """

    file: Path
    matrix: Matrix
    points: list[Point]
    refused: dict[str, str]
    heads: dict[str, Head]
    folder: Path
    cache: Path | str | None = None
    retime: bool = False

    def placed(self, point: Point) -> Point:
        """The point with the places that the sweep gives it."""
        return replace(point, options=replace(point.options, out=self.folder / RUNS, cache=self.cache))


@dataclass
class State:
    """How far a sweep is, for who watches it: tasks that run and where, stages carried out by name, tasks by number."""

    points: list[Point]
    ledger: Ledger
    running: dict[str, str] = field(default_factory=dict)
    executed: dict[str, int] = field(default_factory=dict)
    tasks: int = 0
    ended: int = 0
    lost: int = 0
    began: float = field(default_factory=time.monotonic)


Watch = Callable[[State], None]


def plan_sweep(
    file: Path,
    *,
    out: Path,
    cache: Path | str | None = None,
    resume: bool = False,
    retime: bool = False,
    progress: Progress | None = None,
) -> Planned:
    """Read a sweep's file and plan all its points; what is wrong with the request is refused here.

    A sweep that is there goes on with `resume`, or with `retime`, which also measures again what a busy machine timed.
    A point that this machine cannot run, or whose stages do not go with its head, is kept with the reason.
    """
    matrix = read_matrix(file)
    folder = out / file.stem
    check_place(out, "--out")
    if (folder / TRIALS).exists() and not (resume or retime):
        raise RequestError(f"{folder}: holds a sweep already; add --resume to go on with it, or name another --out")
    planned = Planned(file, matrix, [], {}, {}, folder, cache, retime)
    points = [planned.placed(point) for point in points_of(matrix, str(file))] if matrix.search is None else []
    if matrix.search is not None:
        askers_of(matrix, str(file))  # refuses what a search would
    refused, heads = refusals_of(points, progress)
    return replace(planned, points=points, refused=refused, heads=heads)


def refusals_of(points: Iterable[Point], progress: Progress | None) -> tuple[dict[str, str], dict[str, Head]]:
    """Why points cannot be carried out here, by their ids, and what each model is for, by its name.

    Raises where the request itself is wrong.
    """
    plans: dict[str, Plan] = {}
    heads: dict[str, Head] = {}
    found = {}
    for point in points:
        if point.model not in heads:
            heads[point.model] = inspected(point.options, progress)[1]
        reason = point.refused or why_not_for(point.form, heads[point.model]) or why_not_here(point)
        if reason is None:
            plan = make_plan(point.options, point.form, like=plans.get(point.model), progress=progress)
            plans.setdefault(point.model, plan)
        else:
            found[point.id] = reason
    return found, heads


def why_not_here(point: Point) -> str | None:
    """What this machine lacks that a point needs; None where it lacks nothing."""
    try:
        check_libraries(point.form)
        check_runs(point.form)
    except UnavailableError as error:
        return str(error)
    return None


def sweep(planned: Planned, opened: Opened, *, watch: Watch, packed: bool = False) -> Swept:
    """Carry a sweep out, and write its record and page; what is known already is not done again.

    `opened` opens the pool that carries tasks out. Where that has no disk in common with this process, finished runs
    come back `packed`. Interrupted, it leaves the record of what is known.
    """
    (planned.folder / RUNS).mkdir(parents=True, exist_ok=True)
    put_file(planned.folder / ASKED, planned.file.read_bytes())
    ledger, events = open_ledger(planned.folder), Events(planned.folder / EVENTS)
    is_new = not (planned.folder / FILE).exists()
    created = (
        datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds") if is_new else read(planned.folder).created
    )
    begun = Sweeping(planned, ledger, events, State([], ledger), watch, packed, created, heads=dict(planned.heads))
    events.write("begun", points=len(planned.points), known=len(ledger.trials))
    finished = False
    try:
        finished = begun.carry_out(opened)
    finally:
        events.write("finished" if finished else "interrupted", executed=begun.state.executed)
        swept = begun.record(finished=finished)
        write_swept(swept, planned.folder)
    return swept


def write_swept(swept: Swept, folder: Path) -> None:
    """Write a sweep's record and page."""
    write(swept, folder)
    put_file(folder / PAGE, render_sweep(swept).encode())


@dataclass
class Sweeping:
    """A sweep at work: the points that were asked for so far, and how tasks ended that failed."""

    planned: Planned
    ledger: Ledger
    events: Events
    state: State
    watch: Watch
    packed: bool
    created: str
    points: dict[str, Point] = field(default_factory=dict)
    failed: dict[str, Task] = field(default_factory=dict)
    heads: dict[str, Head] = field(default_factory=dict)

    def carry_out(self, opened: Opened) -> bool:
        """Do all that is left to do; whether nothing is left then."""
        minutes = self.planned.matrix.minutes
        until = None if minutes is None else self.state.began + 60.0 * minutes
        left: list[Task] = []
        with ExitStack() as stack:
            # Only once there is something to do: to join a cluster takes seconds.
            pool = remembered(lambda: stack.enter_context(opened(self.work_of)))
            for points in self.generations():
                left += self.measure(points, pool, until)
                if left:
                    break
            left += self.run([certifying(point) for point in self.to_certify()], pool, until)
        return not left

    def generations(self) -> Iterator[list[Point]]:
        """Points to try, some at a time: all of a matrix, or what a search asks for next."""
        planned = self.planned
        if planned.matrix.search is None:
            yield self.unknown(planned.points, planned.refused)
            return
        askers = askers_of(planned.matrix, str(planned.file))
        known = list(self.ledger.trials.values())
        self.points |= {point.id: planned.placed(point) for asker in askers for point in asker.remember(known)}
        remembered_points = list(self.points.values())
        refused, self.heads = refusals_of(remembered_points, None)
        yield self.unknown(remembered_points, refused)
        while asked := [planned.placed(point) for asker in askers for point in asker.ask()]:
            refused, heads = refusals_of(asked, None)
            self.heads |= heads
            yield self.unknown(asked, refused)
            for asker in askers:
                asker.tell(self.ledger.trials.values())

    def unknown(self, points: Sequence[Point], refused: Mapping[str, str]) -> list[Point]:
        """Those of some points that have to be built and measured; what was refused is noted as failed."""
        self.points |= {point.id: point for point in points}
        self.state.points = list(self.points.values())
        for point in points:
            if point.id in refused:
                self.ledger.note(self.trial(point, "failed", refused[point.id]))
        known = {name for name, trial in self.ledger.trials.items() if self.is_known(trial)}
        self.watch(self.state)
        return [point for point in points if point.id not in known and point.id not in refused]

    def is_known(self, trial: Trial) -> bool:
        """Whether a point is not to be measured any more."""
        return trial.outcome == "measured" and not (self.planned.retime and trial.is_doubtful)

    def measure(self, points: Sequence[Point], pool: Callable[[], Pool], until: float | None) -> list[Task]:
        """Build and measure points; what fails while several are measured is measured by itself. What is left."""
        left = self.run(tasks_of(points), pool, until)
        together = [each for each in self.failed.values() if each.kind == "measure" and len(each.points) > 1]
        again = [self.points[name] for task in together for name in task.points]
        left += self.run(tasks_of(again, together=1), pool, until) if again else []
        for name in {name for task in left for name in task.points} - self.ledger.trials.keys():
            self.ledger.note(self.trial(self.points[name], "left out", NOT_BEGUN))
        return left

    def run(self, tasks: Sequence[Task], pool: Callable[[], Pool], until: float | None) -> list[Task]:
        """Carry tasks out, noting what comes of them; those that are left."""
        self.failed = {}
        if not tasks:
            return []
        self.state.tasks += len(tasks)
        leaves: dict[str, list[str]] = {}
        for task in tasks:
            for point, leaf in task.leaves.items():
                leaves.setdefault(leaf, []).append(point)
        return carry_out(
            tasks,
            pool(),
            begun=self.begun,
            on_end=lambda task, ended: self.ended(task, ended, leaves.get(task.id, [])),
            until=until,
        )

    def begun(self, task: Task, machine: str) -> None:
        """Note that a task has begun."""
        self.state.running[task.name] = machine
        self.events.write("task begun", task=task.name, machine=machine)
        self.watch(self.state)

    def ended(self, task: Task, ended: Ended, leaf_of: Sequence[str]) -> None:
        """Note how a task ended, and what that says of points: of those whose last stage it was, where it failed."""
        self.state.running.pop(task.name, None)
        self.events.write(f"task {ended.outcome}", task=task.name, **({"reason": ended.reason} if ended.reason else {}))
        if ended.outcome == "lost":
            self.state.lost += 1
        else:
            self.state.ended += 1
        if ended.outcome == "done":
            self.done(task, ended.value)
        elif ended.outcome == "failed":
            self.failed[task.id] = task
            for name in (*leaf_of, *(task.points if task.kind == "measure" else ())):
                self.ledger.note(self.trial(self.points[name], "failed", ended.reason))
            if task.kind == "certify":
                known = self.ledger.trials[task.points[0]]
                self.ledger.note(known.model_copy(update={"reason": f"not certified: {ended.reason}"}))
        self.watch(self.state)

    def done(self, task: Task, result: Result) -> None:
        """Note what a task brought."""
        if task.kind == "stage":
            self.count(result.stages[-1])
        for found in result.found:
            if result.environment is None:
                raise ValueError(f"{task.name}: was measured nobody knows where")
            unmet = "; ".join(check.reason for check in found.checks if check.outcome != "passed")
            trial = self.trial(self.points[found.id], "measured", unmet).model_copy(
                update={
                    "stages": found.stages,
                    "tuning": found.tuning,
                    "checks": found.checks,
                    "shape": found.shape,
                    "speedup": found.speedup,
                    "meets_gates": not unmet,
                    "environment": key_of(result.environment),
                }
            )
            self.ledger.note(trial, result.environment)
        if task.kind == "certify":
            if result.packed:
                unpack_run(result, self.planned.folder / RUNS)
            known = self.ledger.trials[task.points[0]]
            self.ledger.note(known.model_copy(update={"run": result.run, "verdict": result.verdict}))

    def count(self, record: StageRecord) -> None:
        """Note a stage, and whether it was carried out."""
        if not record.cached:
            self.state.executed[record.stage] = self.state.executed.get(record.stage, 0) + 1
        facts = {"stage": record.stage, "key": record.key, "cached": record.cached, "seconds": record.seconds}
        self.events.write("stage", **facts)

    def to_certify(self) -> list[Point]:
        """The chosen point of each model and target, if its run is not there yet."""
        found = []
        for trials in self.groups().values():
            trial = chosen_of(trials, self.planned.matrix.prefer)
            if trial is not None and trial.run is None:
                found.append(self.points[trial.id])
        return found

    def groups(self) -> dict[tuple[str, str], list[Trial]]:
        """The points of each model and target that were measured on one kind of machine: that of most of them."""
        found: dict[tuple[str, str], dict[str, list[Trial]]] = {}
        for name in self.points:
            trial = self.ledger.trials.get(name)
            if trial is not None and trial.outcome == "measured":
                machines = found.setdefault((trial.model, trial.target), {})
                machines.setdefault(trial.environment, []).append(trial)
        return {group: max(machines.values(), key=len) for group, machines in found.items()}

    def work_of(self, task: Task) -> Work:
        """A task with all that it takes to carry it out anywhere."""
        points = [self.points[name] for name in task.points]
        parts = [Part(point.id, point.model, point.options, point.form) for point in points]
        return Work(task.kind, parts, task.stages, packed=self.packed)

    def record(self, *, finished: bool) -> Swept:
        """All that is known, as the record keeps it."""
        known = self.ledger.trials
        trials = [
            known.get(name) or self.trial(point, "left out", "the sweep was interrupted; go on with --resume")
            for name, point in self.points.items()
        ]
        used = {trial.environment for trial in trials}
        return Swept(
            name=self.planned.file.stem,
            created=self.created,
            finished=finished,
            request=self.planned.matrix.model_dump(mode="json"),
            prefer=self.planned.matrix.prefer,
            environments={key: each for key, each in self.ledger.environments.items() if key in used},
            trials=with_front(trials),
        )

    def trial(self, point: Point, outcome: Literal["measured", "failed", "left out"], reason: str = "") -> Trial:
        """What the record says of a point of which nothing was measured."""
        return Trial(
            id=point.id,
            model=point.model,
            head=self.heads[point.model].name,
            target=point.form.target,
            pipeline=point.pipeline,
            settings=dict(point.settings),
            label=point.label,
            outcome=outcome,
            reason=reason,
        )
