"""Everything that is measured of a run's models, the PyTorch FP32 reference first.

Accuracy, drift and size are taken model by model in this process; latency, load time and memory
in processes of their own. Models with equal digests (a stage that changed nothing) are measured
once and reported under each of their names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from optimize.artifact import Artifact
from optimize.interfaces import Encoded, Head, Progress
from optimize.manifest import Drift, Measurement, Metric
from optimize.measure.accuracy import compare
from optimize.measure.drift import Observed, invariance, measure_drift
from optimize.measure.latency import Engine, EngineTimes, Settings, Workload, measure_latency
from optimize.measure.predict import run_split
from optimize.measure.size import measure_size
from optimize.measure.workers import opener

RANDOM_WEIGHTS = "not measured: the weights are random"


@dataclass(frozen=True)
class Subject:
    """A model to measure; `target` is a name in TARGETS, or "pytorch" for the FP32 reference."""

    name: str
    artifact: Artifact
    target: str


@dataclass(frozen=True)
class Method:
    """How to measure: shapes and rounds of latency, confidence of intervals, the head and its limits."""

    head: Head
    workload: Workload
    shapes: tuple[str, ...]
    settings: Settings
    confidence: float


def measure_subjects(
    subjects: Sequence[Subject], encoded: Encoded | None, *, method: Method, progress: Progress
) -> list[Measurement]:
    """One measurement a subject, in order; `subjects[0]` is the reference of them all.

    Without `encoded` the weights are random: accuracy and drift are noted as not measured.
    """
    distinct = {subject.artifact.digest: subject for subject in reversed(subjects)}
    quality = _measure_quality(subjects[0], list(distinct.values()), encoded, method=method, progress=progress)
    engines = [
        Engine(subject.name, subject.target, subject.artifact, method.head.name)
        for subject in subjects
        if distinct[subject.artifact.digest] is subject
    ]
    times = measure_latency(
        engines, method.shapes, workload=method.workload, settings=method.settings, progress=progress
    )
    weights = subjects[0].artifact.model_bytes()
    measured = []
    for subject in subjects:
        digest = subject.artifact.digest
        metric, drift = quality.get(digest, (None, None))
        measured.append(_assemble(subject, metric, drift, times[distinct[digest].name], reference_bytes=weights))
    return measured


def _assemble(
    subject: Subject, metric: Metric | None, drift: Drift | None, times: EngineTimes, *, reference_bytes: int
) -> Measurement:
    missing = {} if metric else {"metric": RANDOM_WEIGHTS, "drift": RANDOM_WEIGHTS}
    return Measurement(
        name=subject.name,
        artifact_digest=subject.artifact.digest,
        metric=metric,
        drift=drift,
        latency=times.latency,
        size=measure_size(subject.artifact, reference_bytes),
        load_seconds=times.load_seconds,
        peak_memory_bytes=times.peak_memory_bytes,
        not_measured={**missing, **times.not_measured},
    )


def _measure_quality(
    first: Subject, others: Sequence[Subject], encoded: Encoded | None, *, method: Method, progress: Progress
) -> dict[str, tuple[Metric, Drift]]:
    """Metric and drift by digest; one model is in memory at a time."""
    if encoded is None:
        return {}
    found: dict[str, tuple[Metric, Drift]] = {}
    reference: Observed | None = None
    for subject in (first, *(other for other in others if other.artifact.digest != first.artifact.digest)):
        progress.say(f"evaluating {subject.name}")
        observed, (padding, batch) = _observe(subject, encoded, method=method, progress=progress)
        reference = reference or observed
        metric = compare(observed.score, reference.score, confidence=method.confidence, seed=method.workload.seed)
        drift = measure_drift(observed, reference, head=method.head, padding_max_abs=padding, batch_max_abs=batch)
        found[subject.artifact.digest] = (metric, drift)
    return found


def _observe(
    subject: Subject, encoded: Encoded, *, method: Method, progress: Progress
) -> tuple[Observed, tuple[float, float]]:
    head, pad_id = method.head, method.workload.pad_id
    session = opener(subject.target)(subject.artifact.path, method.settings.threads, head)
    outputs = run_split(session, head, encoded, pad_id=pad_id, progress=progress)
    score = head.score(encoded, outputs.answers)
    moved = invariance(session, head, encoded.features, pad_id=pad_id, max_tokens=method.workload.max_positions)
    return Observed(score, outputs.rows), moved
