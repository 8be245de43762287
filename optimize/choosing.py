"""Pipelines with candidates: build several models, choose one, and only then judge it.

Choosing among candidates is tuning, so it is done on the tuning split: the limits are checked against a candidate's
metric and drift on tuning data, and against its latency and size, measured beside all others. The fastest that meets
every limit is taken, or where a search prefers that, the smallest. Certification data are used once that is done;
before, their texts are timed at shape `data`, without their labels. All candidates are then evaluated on them, but the
verdict is the chosen one's, and where it fails, the run fails: to take the next best then would be to choose on the
data that judge.

A stage that tunes itself on the same split makes its candidate look better there than it is; the verdict does not
depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, isnan

from optimize import gates
from optimize.building import Loaded, Made, reference_subjects
from optimize.config import Preference
from optimize.errors import DataError
from optimize.manifest import Candidate, Check, Measurement
from optimize.measure.subjects import (
    Method,
    Quality,
    Results,
    Subject,
    examples_of,
    measure_quality,
    measure_subjects,
    time_subjects,
)
from optimize.rule import for_a_search
from optimize.search.candidates import Built, named_candidates, require_any
from optimize.search.descent import searched_candidates
from optimize.targets import TARGETS

SPEED = "min_speedup"
"""The limit that a busy machine leaves unverified."""


@dataclass(frozen=True)
class Standing:
    """What a candidate is chosen by: the limits on tuning data, and what is to be small.

    `cost` is its median in ms at the shape that speed is judged at, or where that is preferred, its size in bytes.
    """

    checks: Sequence[Check]
    relative_drop: float | None
    cost: float | None

    @property
    def unmet(self) -> list[Check]:
        """The limits that it does not meet; one that lacks its measurement is not met."""
        return [check for check in self.checks if check.outcome != "passed"]

    @property
    def settled(self) -> bool:
        """Whether nothing is open but how sure its speed-up is."""
        return all((check.name, check.outcome) == (SPEED, "unverified") for check in self.unmet)


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
    """The index of the one that meets all limits at the least cost, else of the one that misses the fewest.

    Ties go to the smaller drop, then (none meets) to the lower cost, then to the first. What was not measured counts
    as the worst. Where the machine was too busy to prove a speed-up, and all other limits are met, cost still decides:
    the verdict stays unverified, but medians of the same rounds are the best that is known.
    """
    return min(range(len(standings)), key=lambda index: _rank(standings[index]))


def _rank(standing: Standing) -> tuple[int, bool, float, float]:
    """What to sort by, the best first."""
    drop, cost, unmet = _or_worst(standing.relative_drop), _or_worst(standing.cost), len(standing.unmet)
    # Among those that meet all limits accuracy is settled, and cost decides; among the others it is not.
    return (unmet, False, cost, drop) if standing.settled else (unmet, True, drop, cost)


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
    search = loaded.plan.pipeline.search
    if search:
        found = searched_candidates(loaded, search, lambda subjects: medians_of(loaded, method_of(subjects), subjects))
    else:
        found = named_candidates(loaded)
    require_any(found, loaded)
    references = reference_subjects(loaded)
    subjects = [*references, *(each.subject for each in found.built)]
    method = method_of(subjects)
    measured = measure_subjects(subjects, loaded.tuning_split, method=method, progress=loaded.progress)
    tuned = measured.measurements
    tried = []
    for one, measurement in zip(found.built, tuned[len(references) :], strict=True):
        tried.append(Tried(one, measurement, stand(loaded, measurement)))
    chosen = tried[choose([each.standing for each in tried])]
    final = chosen.built.subject
    loaded.progress.say(f"chosen on tuning data: {final.name}")
    quality = measure_quality(subjects, loaded.certification_split, method=method, progress=loaded.progress)
    results = certify(subjects, tuned, quality, last=final.name)
    examples = examples_of(quality[references[0].key], quality[final.key], loaded.plan.head)
    results = replace(results, runs=measured.runs, examples=examples)
    unbuilt = {**found.failed, **loaded.plan.left_out}
    candidates = [describe(each, chosen, loaded.plan.pipeline.prefers) for each in tried]
    candidates += [Candidate(pipeline=name, reason=reason) for name, reason in unbuilt.items()]
    return Made(
        chosen.built.records,
        final.artifact,
        results,
        TARGETS[final.target],
        candidates,
        final.runtime,
        chosen.built.checkpoint,
        found.probes,
    )


def medians_of(loaded: Loaded, method: Method, subjects: Sequence[Subject]) -> dict[str, float]:
    """Medians in ms, at the shape that speed is judged at, of those that could be timed there."""
    alone = replace(method, shapes=(loaded.plan.pipeline.gates.speedup_shape,))
    times = time_subjects(subjects, method=alone, progress=loaded.progress)
    return {name: found.latency[0].p50_ms for name, found in times.items() if found.latency}


def stand(loaded: Loaded, tuned: Measurement) -> Standing:
    """How a measurement with metric and drift on tuning data stands to the plan's limits, as one of many does."""
    limits = loaded.plan.pipeline.gates
    limits = limits.model_copy(update={"rule": for_a_search(limits.decided_by)})
    latency = next((each.p50_ms for each in tuned.latency if each.shape == limits.speedup_shape), None)
    return Standing(
        checks=gates.check_limits(limits, tuned),
        relative_drop=tuned.metric.relative_drop if tuned.metric else None,
        cost=latency if loaded.plan.pipeline.prefers == "latency" else tuned.size.bytes,
    )


def describe(tried: Tried, chosen: Tried, prefers: Preference) -> Candidate:
    """What the manifest says of a candidate that was measured."""
    return Candidate(
        pipeline=tried.name,
        stages=tried.built.records,
        tuning=tried.tuned,
        checks=list(tried.standing.checks),
        meets_gates=not tried.standing.unmet,
        measurement=tried.tuned.name,
        chosen=tried is chosen,
        reason=why(tried, chosen, prefers),
    )


def why(tried: Tried, chosen: Tried, prefers: Preference) -> str:
    """Why a candidate was chosen or not, in words."""
    unmet = "; ".join(check.reason for check in tried.standing.unmet)
    if tried is chosen:
        most = "fastest" if prefers == "latency" else "smallest"
        if unmet and tried.standing.settled:
            return f"the {most} that meets all other limits: {unmet}"
        return f"misses the fewest limits: {unmet}" if unmet else f"the {most} that meets all limits"
    if tried.tuned.subject == chosen.tuned.subject:
        return f"the same model as {chosen.name}"
    if unmet:
        return unmet
    ours, best = tried.standing.cost, chosen.standing.cost
    if ours is None or best is None:
        return "meets all limits, but was not timed"
    if prefers == "size":
        return f"meets all limits, but has {ours / 1e6:.2f} MB where {chosen.name} has {best / 1e6:.2f}"
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
