"""A task carried out, in whatever process: a checkpoint opened, a stage run through the cache, models measured.

A process keeps what it has loaded of the last models, since most tasks are of the same ones.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from optimize.building import Folded, Loaded, go_on, load, own_reference, reference_subjects
from optimize.choosing import stand
from optimize.config import Pipeline
from optimize.delivering import deliver
from optimize.files.assembling import assembled
from optimize.files.tars import pack, unpack
from optimize.interfaces import Progress
from optimize.machine import environment
from optimize.manifest import Check, Environment, Manifest, Measurement, Outcome, StageRecord
from optimize.measure.subjects import Subject, measure_subjects
from optimize.planning import Plan, make_plan
from optimize.report.tables import REFERENCE, at_shape
from optimize.request import Options
from optimize.running import method_of, run
from optimize.sweep.tasks import Kind

KEPT = 4
"""Models that a process keeps loaded, each with and without training data; texts of a large one take some 100 MB."""


@dataclass(frozen=True)
class Part:
    """A point as work needs it: its options, and its pipeline with all that is set."""

    id: str
    model: str
    options: Options = field(repr=False)
    form: Pipeline = field(repr=False)


@dataclass(frozen=True)
class Work:
    """A task with all that it takes to carry it out anywhere; a run comes back `packed` where no disk is shared."""

    kind: Kind
    parts: Sequence[Part]
    stages: int = 0
    packed: bool = False


@dataclass(frozen=True)
class Found:
    """What was measured of a point on tuning data, and how that stands to its limits."""

    id: str
    stages: list[StageRecord]
    tuning: Measurement
    checks: list[Check]
    shape: str
    speedup: float | None


@dataclass(frozen=True)
class Result:
    """What came of a task: the stages that it went through; what was measured, and where; or a run's name and verdict.

    `packed` is that run's folder as a tar file, where it was made on another machine.
    """

    stages: list[StageRecord] = field(default_factory=list)
    found: list[Found] = field(default_factory=list)
    environment: Environment | None = None
    run: str = ""
    verdict: Outcome | None = None
    packed: bytes = b""


@dataclass(frozen=True)
class _Model:
    """What tells one loaded checkpoint with its data from another; the rest is what loads it."""

    name: str
    folder: str
    trained: bool
    plan: Plan = field(compare=False)
    progress: Progress = field(compare=False)


def carry_out(work: Work, progress: Progress) -> Result:
    """Do a task. Raises what building and measuring raise."""
    plan = _plan(work.parts[0])
    loaded = _loaded_for(plan, work.parts[0], progress)
    match work.kind:
        case "open":
            return Result()
        case "reference":
            own_reference(loaded, plan.target.name, plan.pipeline.runtime)
            return Result()
        case "stage":
            folded = go_on(Folded(loaded), plan.pipeline.stages[: work.stages])
            return Result(list(folded.records))
        case "measure":
            return _measured(loaded, work.parts)
        case "certify":
            return _certified(plan, progress, packed=work.packed)


def _certified(plan: Plan, progress: Progress, *, packed: bool) -> Result:
    """A whole run of a point, from the cache for the most part, on certification data."""
    if not packed:
        folder, manifest = _tracked(plan, progress)
        return Result(manifest.stages, run=folder.name, verdict=manifest.verdict.outcome)
    with tempfile.TemporaryDirectory() as place:
        folder, manifest = _tracked(replace(plan, out=Path(place)), progress)
        packed_run = io.BytesIO()
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        pack({path.relative_to(folder).as_posix(): path for path in paths}, packed_run)
    return Result(manifest.stages, run=folder.name, verdict=manifest.verdict.outcome, packed=packed_run.getvalue())


def _tracked(plan: Plan, progress: Progress) -> tuple[Path, Manifest]:
    done = run(plan, progress=progress)
    for line in deliver([done], junit=None, track=plan.track):
        progress.say(line)
    return done


def unpack_run(result: Result, place: Path) -> None:
    """Put a run's folder that came packed among the others, whole or not at all."""
    with assembled(place, result.run) as partial:
        for name, _, chunks in unpack(io.BytesIO(result.packed)):
            path = partial / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as stream:
                stream.writelines(chunks)
        partial.rename(place / result.run)


def _plan(part: Part) -> Plan:
    return make_plan(part.options, part.form)


def _loaded_for(plan: Plan, part: Part, progress: Progress) -> Loaded:
    model = _Model(part.model, str(plan.cache), bool(plan.wanted.training_examples), plan, progress)
    return replace(_loaded(model), plan=plan, progress=progress)


@lru_cache(maxsize=KEPT)
def _loaded(model: _Model) -> Loaded:
    return load(model.plan, model.progress)


def _measured(first: Loaded, parts: Sequence[Part]) -> Result:
    """Models of some points beside their references, in the same rounds, on tuning data."""
    plans = [make_plan(part.options, part.form, like=first.plan) for part in parts]
    folded = []
    for part, plan in zip(parts, plans, strict=True):
        folded.append(go_on(Folded(_loaded_for(plan, part, first.progress)), plan.pipeline.stages))
    together = replace(first, plan=replace(plans[0], candidates=tuple(plan.pipeline for plan in plans)))
    references = reference_subjects(together)
    subjects = list(references)
    for part, plan, model in zip(parts, plans, folded, strict=True):
        subjects.append(Subject(part.id, model.last, plan.target.name, plan.pipeline.runtime))
    method = method_of(together, subjects)
    results = measure_subjects(subjects, first.tuning_split, method=method, progress=first.progress)
    found = []
    for part, plan, model, tuned in zip(parts, plans, folded, results.measurements[len(references) :], strict=True):
        shape = plan.pipeline.gates.speedup_shape
        latency = at_shape(tuned, shape)
        checks = list(stand(replace(first, plan=plan), tuned).checks)
        speedup = latency.speedup.get(REFERENCE) if latency else None
        found.append(Found(part.id, list(model.records), tuned, checks, shape, speedup))
    device = plans[0].target.describe(plans[0].pipeline.runtime)
    here = environment.detect().model_copy(update={"device": device})
    return Result([record for model in folded for record in model.records], found, here)
