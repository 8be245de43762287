"""Everything that is measured of a run's models, the PyTorch FP32 reference first.

Accuracy, drift and size are taken model by model in this process; latency, load time and memory
in processes of their own. Equal models that run alike (a stage that changed nothing) are measured
once and reported under each of their names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from optimize.artifact import Artifact
from optimize.evaluate.accuracy import RESAMPLES, best_constant, compare
from optimize.evaluate.classes import compare_classes
from optimize.evaluate.drift import Observed, alike, invariance, measure_drift
from optimize.evaluate.judge import pad_id_of
from optimize.evaluate.saying import run_and_say, texts_of
from optimize.examples import Answer, Example
from optimize.interfaces import Array, Encoded, Head, Params, Progress, Said, Score
from optimize.manifest import Constant, Drift, Measurement, Metric, Size
from optimize.measure.kinds import KINDS
from optimize.measure.latency import DeviceMemory, Engine, EngineTimes, Settings, Workload, measure_latency
from optimize.measure.size import measure_size
from optimize.measure.workers import opener

RANDOM_WEIGHTS = "the weights are random"

Split = Callable[[Path], Encoded]
"""A split's rows as the tokenizer of a model's folder splits them; the same object for models that share one."""


@dataclass(frozen=True)
class Subject:
    """A model to measure; `target` is a name in TARGETS, or "pytorch"; `runtime` are the target's settings.

    Speed-ups are given over every `reference`.
    """

    name: str
    artifact: Artifact
    target: str
    runtime: Params = field(default_factory=Params)
    reference: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """What two subjects share that are one and the same to measure: the model, and how it is run."""
        return self.artifact.digest, self.runtime.model_dump_json()


@dataclass(frozen=True)
class Quality:
    """How good a model's answers are, what each is in words, and the examples that it was asked."""

    metric: Metric
    drift: Drift
    score: Score
    said: Sequence[Said]
    encoded: Encoded


@dataclass(frozen=True)
class Method:
    """How to measure: shapes and rounds of latency, confidence of intervals, the head and its limits.

    `device` is where the models run, if that has memory of its own. `untimed` says why latency is not measured.
    `compressed` asks for what the models' files compress to.
    """

    head: Head
    workload: Workload
    shapes: tuple[str, ...]
    settings: Settings
    confidence: float
    device: DeviceMemory | None = None
    untimed: str | None = None
    compressed: bool = False


@dataclass(frozen=True)
class Results:
    """A measurement for each subject, and what is behind them.

    That is the scores, kept per example for pairing, seconds of every run by model and shape, and in words what the
    first model and the last one answered.
    """

    measurements: list[Measurement]
    scores: dict[str, Score]
    runs: Mapping[str, Mapping[str, Array]] = field(default_factory=dict)
    examples: Sequence[Example] = ()


def measure_subjects(
    subjects: Sequence[Subject], split: Split | None, *, method: Method, progress: Progress
) -> Results:
    """One measurement a subject, in order; `subjects[0]` is the reference of them all.

    Without `split` the weights are random: accuracy and drift are noted as not measured.
    """
    # A stage that changed nothing gives the model before it, which is measured under the first of its names.
    first: dict[tuple[str, str], Subject] = {}
    for subject in subjects:
        first.setdefault(subject.key, subject)
    distinct = list(first.values())
    quality = measure_quality(distinct, split, method=method, progress=progress) if split else {}
    times = time_subjects(distinct, method=method, progress=progress)
    sizes = measure_sizes(subjects, compressed=method.compressed)
    measurements: list[Measurement] = []
    scores: dict[str, Score] = {}
    for subject in subjects:
        found, engine = quality.get(subject.key), first[subject.key].name
        measurements.append(_assemble(subject, found, times[engine], sizes[subject.artifact.digest]))
        if found is not None:
            scores[subject.name] = found.score
    runs = {subject.name: times[first[subject.key].name].runs for subject in subjects}
    examples = examples_of(quality[subjects[0].key], quality[subjects[-1].key], method.head) if quality else []
    return Results(measurements, scores, runs, examples)


def measure_sizes(subjects: Sequence[Subject], *, compressed: bool) -> dict[str, Size]:
    """The size of each model by its digest; ratios are to the first."""
    weights = subjects[0].artifact.model_bytes()
    sizes: dict[str, Size] = {}
    for artifact in (subject.artifact for subject in subjects):
        if artifact.digest not in sizes:
            read = KINDS[artifact.kind].tensors
            sizes[artifact.digest] = measure_size(artifact, weights, read=read, compressed=compressed)
    return sizes


def time_subjects(subjects: Sequence[Subject], *, method: Method, progress: Progress) -> dict[str, EngineTimes]:
    """Latency, load time and memory of models that take turns, by their names."""
    if method.untimed:
        missing = {"latency": method.untimed, "memory": method.untimed}
        return {each.name: EngineTimes(not_measured=missing) for each in subjects}
    head = method.head
    return measure_latency(
        [Engine(each.name, each.target, each.artifact, head.name, each.runtime, head.code) for each in subjects],
        method.shapes,
        references=[each.name for each in subjects if each.reference],
        workload=method.workload,
        settings=method.settings,
        progress=progress,
        device=method.device,
    )


def _assemble(subject: Subject, quality: Quality | None, times: EngineTimes, size: Size) -> Measurement:
    missing = {} if quality else {"metric": RANDOM_WEIGHTS, "drift": RANDOM_WEIGHTS}
    return Measurement(
        name=subject.name,
        artifact_digest=subject.artifact.digest,
        runtime=subject.runtime.model_dump(mode="json"),
        metric=quality.metric if quality else None,
        drift=quality.drift if quality else None,
        latency=times.latency,
        size=size,
        load_seconds=times.load_seconds,
        peak_memory_bytes=times.peak_memory_bytes,
        device_memory_bytes=times.device_memory_bytes,
        not_measured={**missing, **times.not_measured},
    )


def measure_quality(
    subjects: Sequence[Subject], split: Split, *, method: Method, progress: Progress
) -> dict[tuple[str, str], Quality]:
    """Metric, drift and score by the subject's key, against the first; one model is in memory at a time.

    Each is asked what its own tokenizer makes of the examples.
    """
    found: dict[tuple[str, str], Quality] = {}
    base = split(subjects[0].artifact.path)
    reference: Observed | None = None
    constant: Constant | None = None
    for subject in subjects:
        if subject.key in found:
            continue
        progress.say(f"evaluating {subject.name}")
        encoded = split(subject.artifact.path)
        observed, said, moved = _observe(subject, encoded, method=method, progress=progress)
        reference = reference or observed
        metric = _metric(observed.score, reference.score, method)
        constant = constant or best_constant(
            method.head, base, reference.score, confidence=method.confidence, seed=method.workload.seed
        )
        metric = metric.model_copy(update={"constant": constant})
        drift = _drift((observed, encoded), (reference, base), method.head, moved)
        found[subject.key] = Quality(metric, drift, observed.score, said, encoded)
    return found


def _metric(candidate: Score, reference: Score, method: Method) -> Metric:
    """The metric, and F1 by class where answers are classes."""
    confidence, seed = method.confidence, method.workload.seed
    metric = compare(candidate, reference, confidence=confidence, seed=seed)
    if candidate.classes is None or reference.classes is None:
        return metric
    classes, macro = compare_classes(
        candidate.classes, reference.classes, confidence=confidence, seed=seed, resamples=RESAMPLES
    )
    return metric.model_copy(update={"classes": classes, "macro_f1": macro})


def _drift(
    candidate: tuple[Observed, Encoded], reference: tuple[Observed, Encoded], head: Head, moved: tuple[float, float]
) -> Drift:
    """How far a model is from the reference; output by output only where both see as many tokens."""
    (ours, encoded), (theirs, base) = candidate, reference
    left_out = 0
    # The same object where both have one tokenizer: then rows are beside each other already.
    if encoded is not base:
        ours, theirs, left_out = alike((ours, encoded.features), (theirs, base.features))
    padding, batch = moved
    return measure_drift(ours, theirs, head=head, padding_max_abs=padding, batch_max_abs=batch, left_out=left_out)


def _observe(
    subject: Subject, encoded: Encoded, *, method: Method, progress: Progress
) -> tuple[Observed, Sequence[Said], tuple[float, float]]:
    head, pad_id = method.head, pad_id_of(subject.artifact.path)
    session = opener(subject.target)(subject.artifact.path, method.settings.threads, head, subject.runtime)
    spoken = run_and_say(session, head, encoded, pad_id=pad_id, progress=progress)
    score = head.score(encoded, spoken.outputs.answers)
    moved = invariance(session, head, encoded.features, pad_id=pad_id, max_tokens=method.workload.max_positions)
    return Observed(score, spoken.outputs.rows), spoken.said, moved


def examples_of(reference: Quality, result: Quality, head: Head) -> list[Example]:
    """What two models answered to each example, in words; none where the head has no words for it."""
    if not (reference.said and result.said):
        return []
    found = []
    theirs, ours = _answers(reference), _answers(result)
    for index, (row, tokens) in enumerate(zip(reference.encoded.rows, _tokens(reference.encoded), strict=True)):
        example = Example(
            texts=texts_of(row, head),
            tokens=tokens,
            gold=reference.said[index].gold,
            same=theirs[index].answer == ours[index].answer,
            reference=theirs[index],
            result=ours[index],
        )
        found.append(example)
    return found


def _answers(quality: Quality) -> list[Answer]:
    right = quality.score.right
    found = []
    for index, said in enumerate(quality.said):
        answer = Answer(
            answer=said.answer,
            confidence=_rounded(said.confidence),
            right=None if right is None else bool(right[index]),
            decisions=[(round(sure, 4), is_right) for sure, is_right in said.decisions],
        )
        found.append(answer)
    return found


def _rounded(confidence: float | None) -> float | None:
    return None if confidence is None else round(confidence, 4)


def _tokens(encoded: Encoded) -> list[int]:
    """Tokens of each example's longest feature."""
    longest = [0] * len(encoded.gold)
    for feature in encoded.features:
        longest[feature.example] = max(longest[feature.example], feature.tokens)
    return longest
