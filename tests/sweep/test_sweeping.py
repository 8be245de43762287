"""A sweep from its file to its page: shared stages once, failures kept, interruptions resumed, one point certified."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import yaml
from doubles import FEW, Silent

from optimize import manifest, swept
from optimize.errors import RequestError, StageError
from optimize.manifest import Latency
from optimize.measure import subjects
from optimize.measure.latency import EngineTimes
from optimize.sweep.front import Wanted
from optimize.sweep.ledger import EVENTS, TRIALS
from optimize.sweep.picking import pick
from optimize.sweep.processes import attempt, processes
from optimize.sweep.schedule import Ended, Machine
from optimize.sweep.sweeping import Planned, plan_sweep, sweep
from optimize.sweep.tasks import Task
from optimize.sweep.work import Part, Work

HEAD = "text-classification"
PIPELINES = {
    "dynamic": "{target: cpu, stages: [export, quantize_dynamic], gates: {min_agreement: 0.5, speedup_shape: 1x16}}",
    "plain": "{target: cpu, stages: [export], gates: {min_agreement: 0.5, max_size_ratio: 2.0, speedup_shape: 1x16}}",
}


@pytest.fixture(autouse=True)
def timed(monkeypatch) -> None:
    """Times as files' sizes have them: engines in processes of their own are others' tests."""

    def measure(engines, shapes, *, references, **_):
        seconds = {each.name: each.artifact.size_bytes / 1e6 for each in engines}
        return {name: EngineTimes(latencies(name, seconds, shapes, references), 0.1, 10**6) for name in seconds}

    monkeypatch.setattr(subjects, "measure_latency", measure)


def latencies(name, seconds, shapes, references):
    found = []
    for shape in shapes:
        speedup = {each: seconds[each] / seconds[name] for each in references}
        found.append(Latency(shape=shape, p50_ms=seconds[name], p90_ms=None, p99_ms=None, runs=20, speedup=speedup))
    return found


@dataclass
class Inline:
    """A pool that does tasks in this process, in which tests can look; and stops where it is told to."""

    describe: Callable[[Task], Work]
    stops_after: int | None = None
    waiting: list[Task] = field(default_factory=list)
    done: list[str] = field(default_factory=list)

    def machines(self):
        return [Machine("here", 1)]

    def start(self, task, machine):
        self.waiting.append(task)

    def wait(self):
        task = self.waiting.pop()
        if self.stops_after is not None and len(self.done) >= self.stops_after:
            raise KeyboardInterrupt
        self.done.append(task.kind)
        word, what = attempt(self.describe(task), Silent())
        return [Ended(task.id, word, value=what) if word == "done" else Ended(task.id, word, reason=what)]


@dataclass
class World:
    """A file that asks for a sweep, and the pools that were opened for it."""

    file: Path
    place: Path
    pools: list[Inline] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.place / "sweeps" / self.file.stem

    def change(self, **content: object) -> None:
        known = yaml.safe_load(self.file.read_text())
        self.file.write_text(yaml.safe_dump({**known, **content}))

    def plan(self, **others: object) -> Planned:
        return plan_sweep(self.file, out=self.place / "sweeps", cache=self.place / "cache", **others)

    def run(self, *, stops_after: int | None = None, **others: bool) -> swept.Swept:
        @contextmanager
        def opened(describe: Callable[[Task], Work]) -> Iterator[Inline]:
            self.pools.append(Inline(describe, stops_after))
            yield self.pools[-1]

        return sweep(self.plan(**others), opened, watch=lambda _: None)

    @property
    def events(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in (self.folder / EVENTS).read_text().splitlines()]

    @property
    def executed(self) -> list[str]:
        return [str(each["key"]) for each in self.events if each["event"] == "stage" and not each["cached"]]


@pytest.fixture
def world(checkpoint, data_folder, tmp_path) -> World:
    """Two recipes for one checkpoint, of which `export` is shared."""
    for name, content in PIPELINES.items():
        (tmp_path / f"{name}.yaml").write_text(content)
    content = {
        "models": [{"model": str(checkpoint(HEAD)), "data": str(data_folder(HEAD)), "name": "it"}],
        "pipelines": [str(tmp_path / f"{name}.yaml") for name in PIPELINES],
        "options": {**FEW, "examples": 60, "threads": 1},
    }
    world = World(tmp_path / "many.yaml", tmp_path)
    world.file.write_text(yaml.safe_dump(content))
    return world


def test_a_sweep_from_its_file_to_its_page(world):
    found = world.run()
    assert found.finished
    assert [trial.outcome for trial in found.trials] == ["measured", "measured"]
    assert len(world.executed) == len(set(world.executed)) == 2, "export, once, and quantize_dynamic"
    first, *between, measure, last = world.pools[0].done
    assert (first, measure, last) == ("open", "measure", "certify")
    assert sorted(between) == ["reference", "stage", "stage"]
    (chosen,) = (trial for trial in found.trials if trial.run)
    run = manifest.read(world.folder / swept.RUNS / chosen.run)
    assert chosen.verdict == run.verdict.outcome
    assert run.data["certification"].digest != run.data["tuning"].digest
    assert {stage.key for stage in chosen.stages} == {stage.key for stage in run.stages}
    assert swept.read(world.folder) == found
    page = (world.folder / swept.PAGE).read_text()
    assert "2 points: 2 measured" in page
    assert f"runs/{chosen.run}/report.html" in page
    assert "://" not in page, "nothing of it is elsewhere"


def test_what_is_known_is_not_done_again(world):
    first = world.run()
    again = world.run(resume=True)
    assert (again.trials, again.created) == (first.trials, first.created)
    assert len(world.pools) == 1  # nothing was left to do, so no pool was opened
    (world.place / "lean.yaml").write_text(PIPELINES["dynamic"].replace("export", "export: {lean: true}"))
    world.change(pipelines=[str(world.place / f"{name}.yaml") for name in (*PIPELINES, "lean")])
    more = world.run(resume=True)
    assert [trial.id for trial in more.trials][:2] == [trial.id for trial in first.trials]
    assert world.pools[-1].done.count("stage") == 2  # of the new one alone


def test_what_a_busy_machine_timed_is_measured_again_where_that_is_asked_for(world, monkeypatch):
    quiet = subjects.measure_latency

    def busy(*engines, **others):
        return {name: doubted(times) for name, times in quiet(*engines, **others).items()}

    def doubted(times):
        latency = [each.model_copy(update={"unreliable": "the machine was busy"}) for each in times.latency]
        return replace(times, latency=latency)

    with monkeypatch.context() as patch:
        patch.setattr(subjects, "measure_latency", busy)
        first = world.run()
    assert all(trial.is_doubtful for trial in first.trials)
    assert world.run(resume=True).trials == first.trials
    again = world.run(retime=True)
    assert not any(trial.is_doubtful for trial in again.trials)
    assert world.pools[-1].done.count("certify") == 1


@pytest.mark.parametrize("stops_after", [0, 2, 4, 5])
def test_an_interrupted_sweep_keeps_what_it_knows_and_goes_on(world, stops_after):
    with pytest.raises(KeyboardInterrupt):
        world.run(stops_after=stops_after)
    left = swept.read(world.folder)
    assert not left.finished
    known = [trial for trial in left.trials if trial.outcome == "measured"]
    assert len(known) == (2 if stops_after == 5 else 0)
    assert "--resume" in (world.folder / swept.PAGE).read_text()
    with pytest.raises(RequestError, match="holds a sweep already; add --resume") if known else nothing():
        world.plan()
    done = world.run(resume=True)
    assert done.finished
    assert len(world.executed) == len(set(world.executed))
    assert ("measure" in world.pools[-1].done) is (not known)


@contextmanager
def nothing() -> Iterator[None]:
    yield


def test_a_point_that_fails_is_kept_with_its_reason(world):
    stages = "[export, {quantize_static: {sensitivity: false, exclude: [nothing-is-called-so]}}]"
    text = PIPELINES["dynamic"].replace("[export, quantize_dynamic]", stages)
    (world.place / "broken.yaml").write_text(text)  # the stage refuses once it sees the model
    world.change(pipelines=[str(world.place / f"{name}.yaml") for name in (*PIPELINES, "broken")])
    found = world.run()
    assert [trial.outcome for trial in found.trials] == ["measured", "measured", "failed"]
    (failed,) = (trial for trial in found.trials if trial.outcome == "failed")
    assert "nothing-is-called-so" in failed.reason
    assert failed.reason in (world.folder / swept.PAGE).read_text().replace("&#39;", "'")
    assert sum(trial.run is not None for trial in found.trials) == 1


def test_what_one_model_breaks_is_measured_without_it(world, monkeypatch):
    real = subjects.measure_latency
    broken = next(point.id for point in world.plan().points if point.pipeline.endswith("dynamic.yaml"))

    def breaking(engines, *others, **more):
        if broken in [each.name for each in engines]:
            raise StageError(f"latency of '{broken}': its process ended with code -9")
        return real(engines, *others, **more)

    monkeypatch.setattr(subjects, "measure_latency", breaking)
    found = world.run()
    assert {Path(trial.pipeline).stem: trial.outcome for trial in found.trials} == {
        "dynamic": "failed",
        "plain": "measured",
    }


def test_time_that_is_over_leaves_the_rest(world):
    world.change(minutes=1e-9)
    found = world.run()
    assert not found.finished
    assert {trial.outcome for trial in found.trials} == {"left out"}
    world.change(minutes=60)
    assert world.run(resume=True).finished


def test_pick_takes_the_certified_one_or_certifies_another(world):
    found = world.run()
    (chosen,) = (trial for trial in found.trials if trial.run)
    (other,) = (trial for trial in found.trials if not trial.run)
    cache, lines = world.place / "cache", Silent()
    same, folder = pick(world.folder, Wanted(max_size=chosen.size_ratio), cache=cache, progress=lines)
    assert (same.id, folder.name) == (chosen.id, chosen.run)
    wanted = Wanted(prefer="accuracy" if other.relative_drop < chosen.relative_drop else "size")
    if other.size_ratio > chosen.size_ratio and wanted.prefer == "size":
        pytest.skip("the certified one is best by everything here")
    picked, folder = pick(world.folder, wanted, cache=cache, progress=lines)
    assert picked.id == other.id
    assert manifest.read(folder).verdict.outcome == picked.verdict
    assert swept.read(world.folder).trials[found.trials.index(other)].run == folder.name


def test_a_search_tries_as_many_as_asked_for_and_remembers(world):
    world.change(search={"trials": 3, "batch": 2}, settings={"export.lean": [True, False]})
    found = world.run()
    assert len(found.trials) == 3
    again = world.run(resume=True)
    assert [trial.id for trial in again.trials] == [trial.id for trial in found.trials]
    assert len(world.pools) == 1


def test_processes_carry_tasks_out_and_one_that_dies_is_replaced(world):
    planned = world.plan()
    point = planned.points[0]
    work = Work("open", [Part(point.id, point.model, point.options, point.form)])
    with processes(1, lambda _: work, progress=Silent()) as pool:
        (machine,) = pool.machines()
        pool.start(Task("a", "open", "a", (point.id,)), machine)
        pool.busy["a"].process.kill()
        (lost,) = pool.wait()
        pool.start(Task("a", "open", "a", (point.id,)), machine)
        (done,) = pool.wait()
        process = pool.idle[0].process
    assert (lost.outcome, lost.reason) == ("lost", "its process was ended by signal 9")
    assert done.outcome == "done", done.reason
    assert not process.is_alive()


def test_a_folder_without_a_record_is_refused(world):
    with pytest.raises(RequestError, match="cannot be read"):
        swept.read(world.folder)
    assert not (world.folder / TRIALS).exists()
