"""Pipeline `auto`: build several pipelines' models, choose one, and only then judge it.

Choosing among candidates is tuning, so it is done on the tuning split: the limits are checked against a candidate's
metric and drift on tuning data, and against its latency and size, measured beside all others. The fastest that meets
every limit is taken. Certification data are used once that is done; before, their texts are timed at shape `data`,
without their labels. All candidates are then evaluated on them, but the verdict is the chosen one's, and where it
fails, the run fails: to take the next best then would be to choose on the data that judge.

A stage that tunes itself on the same split makes its candidate look better there than it is; the verdict does not
depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from math import inf, isnan

from optimize import gates
from optimize.artifact import Artifact
from optimize.building import Loaded, Made, fold, last_checkpoint, reference_subjects, say_if_cached
from optimize.errors import DataError, StageError
from optimize.manifest import Candidate, Check, Measurement, StageRecord
from optimize.measure.subjects import Method, Quality, Results, Subject, examples_of, measure_quality, measure_subjects
from optimize.rule import for_a_search
from optimize.targets import TARGETS


@dataclass(frozen=True)
class Built:
    """A candidate that could be built."""

    records: list[StageRecord]
    subject: Subject
    checkpoint: Artifact | None


@dataclass(frozen=True)
class Standing:
    """What a candidate is chosen by: the limits on tuning data, and its median at the shape that speed is judged at."""

    checks: Sequence[Check]
    relative_drop: float | None
    latency_ms: float | None

    @property
    def unmet(self) -> list[Check]:
        """The limits that it does not meet; one that lacks its measurement is not met."""
        return [check for check in self.checks if check.outcome != "passed"]


@dataclass(frozen=True)
class Tried:
    """A candidate with its measurement on tuning data and how that stands to the limits."""

    built: Built
    tuned: Measurement
    standing: Standing

    @property
    def name(self) -> str:
        """The pipeline's name, which the model is measured under."""
        return self.built.subject.name


def choose(standings: Sequence[Standing]) -> int:
    """The index of the fastest that meets all limits, else of the one that misses the fewest.

    Ties go to the smaller drop, then (none meets) to the faster, then to the first. What was not
    measured counts as the worst.
    """
    return min(range(len(standings)), key=lambda index: _rank(standings[index]))


def _rank(standing: Standing) -> tuple[int, float, float]:
    """What to sort by, the best first."""
    drop, time = _or_worst(standing.relative_drop), _or_worst(standing.latency_ms)
    # Among those that meet all limits accuracy is settled, and speed decides; among the others it is not.
    return (len(standing.unmet), drop, time) if standing.unmet else (0, time, drop)


def _or_worst(value: float | None) -> float:
    return inf if value is None or isnan(value) else value


def try_candidates(loaded: Loaded, method_of: Callable[[Sequence[Subject]], Method]) -> Made:
    """Build all of a plan's candidates, choose on tuning data, and only then evaluate them on certification data.

    `method_of` says how models are measured. Raises DataError where no tuning data are left, StageError where no
    candidate could be built.
    """
    if not loaded.splits.tuning:
        where = loaded.plan.request.data
        name = loaded.plan.pipeline.name
        raise DataError(
            f"{where}: leaves no tuning examples for '{name}' to choose on; give more data, or name one pipeline"
        )
    built, failed = build_candidates(loaded)
    references = reference_subjects(loaded)
    subjects = [*references, *(each.subject for each in built)]
    method = method_of(subjects)
    measured = measure_subjects(subjects, loaded.tuning_split, method=method, progress=loaded.progress)
    tuned = measured.measurements
    tried = []
    for one, measurement in zip(built, tuned[len(references) :], strict=True):
        tried.append(Tried(one, measurement, stand(loaded, measurement)))
    chosen = tried[choose([each.standing for each in tried])]
    final = chosen.built.subject
    loaded.progress.say(f"chosen on tuning data: {final.name}")
    quality = measure_quality(subjects, loaded.certification_split, method=method, progress=loaded.progress)
    results = certify(subjects, tuned, quality, last=final.name)
    examples = examples_of(quality[references[0].key], quality[final.key], loaded.plan.head)
    results = replace(results, runs=measured.runs, examples=examples)
    unbuilt = {**failed, **loaded.plan.left_out}
    candidates = [describe(each, chosen) for each in tried]
    candidates += [Candidate(pipeline=name, reason=reason) for name, reason in unbuilt.items()]
    return Made(
        chosen.built.records,
        final.artifact,
        results,
        TARGETS[final.target],
        candidates,
        final.runtime,
        chosen.built.checkpoint,
    )


def build_candidates(loaded: Loaded) -> tuple[list[Built], dict[str, str]]:
    """The candidates that could be built, and for the others the stage's reason; refuse if none could."""
    # A stage that fails is one candidate less, and no failure of the run: the others need nothing of it.
    built: list[Built] = []
    failed: dict[str, str] = {}
    for pipeline in loaded.plan.candidates:
        loaded.progress.say(f"candidate {pipeline.name}")
        try:
            alone = replace(loaded, plan=loaded.plan.of(pipeline))
            records, artifacts = fold(alone, pipeline.stages)
        except StageError as error:
            failed[pipeline.name] = " ".join(str(error).split())
            loaded.progress.say(f"candidate {pipeline.name}: not built: {failed[pipeline.name]}")
        else:
            subject = Subject(pipeline.name, artifacts[-1], pipeline.target, pipeline.runtime)
            built.append(Built(records, subject, last_checkpoint(artifacts)))
    if not built:
        reasons = " | ".join(f"{name}: {reason}" for name, reason in failed.items())
        raise StageError(f"pipeline {loaded.plan.pipeline.name}: no candidate could be built: {reasons}")
    say_if_cached(loaded, list(chain.from_iterable(each.records for each in built)))
    return built, failed


def stand(loaded: Loaded, tuned: Measurement) -> Standing:
    """How a measurement with metric and drift on tuning data stands to the plan's limits, as one of many does."""
    limits = loaded.plan.pipeline.gates
    limits = limits.model_copy(update={"rule": for_a_search(limits.decided_by)})
    latency = next((each for each in tuned.latency if each.shape == limits.speedup_shape), None)
    return Standing(
        checks=gates.check_limits(limits, tuned),
        relative_drop=tuned.metric.relative_drop if tuned.metric else None,
        latency_ms=latency.p50_ms if latency else None,
    )


def describe(tried: Tried, chosen: Tried) -> Candidate:
    """What the manifest says of a candidate that was measured."""
    return Candidate(
        pipeline=tried.name,
        stages=tried.built.records,
        tuning=tried.tuned,
        checks=list(tried.standing.checks),
        meets_gates=not tried.standing.unmet,
        measurement=tried.tuned.name,
        chosen=tried is chosen,
        reason=why(tried, chosen),
    )


def why(tried: Tried, chosen: Tried) -> str:
    """Why a candidate was chosen or not, in words."""
    unmet = "; ".join(check.reason for check in tried.standing.unmet)
    if tried is chosen:
        return f"misses the fewest limits: {unmet}" if unmet else "the fastest that meets all limits"
    if tried.tuned.subject == chosen.tuned.subject:
        return f"the same model as {chosen.name}"
    if unmet:
        return unmet
    ours, best = tried.standing.latency_ms, chosen.standing.latency_ms
    if ours is None or best is None:
        return "meets all limits, but was not timed"
    return f"meets all limits, but takes {ours:.2f} ms where {chosen.name} takes {best:.2f}"


def certify(
    subjects: Sequence[Subject],
    tuned: Sequence[Measurement],
    quality: Mapping[tuple[str, str], Quality],
    *,
    last: str,
) -> Results:
    """The measurements with what certification data say in place of what tuning data said; `last` comes last."""
    found = {subject.name: quality[subject.key] for subject in subjects}
    measurements = []
    for each in sorted(tuned, key=lambda each: each.name == last):
        known = found[each.name]
        measurements.append(each.model_copy(update={"metric": known.metric, "drift": known.drift}))
    return Results(measurements, {name: known.score for name, known in found.items()})
