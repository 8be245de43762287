"""Build a plan: its checkpoint and data, and stages folded over the model.

Nothing is redone that the cache holds. The context that stages see (tokenized calibration and
tuning rows) is made only when a stage really runs.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optimize import cache
from optimize.artifact import Artifact, Kind, copy_companions, folder_digest, tokenizer_digest
from optimize.checkpoint import read_config
from optimize.config import Step, parse_runtime, parse_step
from optimize.data.splits import load_splits
from optimize.data.tokenized import encode, read_text, split_by_tokenizer, token_limit
from optimize.data.wanted import Splits
from optimize.errors import StageError
from optimize.evaluate.judge import pad_id_of
from optimize.evaluate.predict import run_split
from optimize.files.copies import Files, digests_of, files_below, private_copy
from optimize.interfaces import Context, Encoded, Facts, Head, Params, Progress, Session, Target, Text
from optimize.machine import environment
from optimize.manifest import ArtifactRecord, Candidate, Probe, SourceCard, StageRecord
from optimize.measure.kinds import KINDS
from optimize.measure.latency import DeviceMemory
from optimize.measure.stacks import time_stacks
from optimize.measure.subjects import Results, Split, Subject
from optimize.planning import Plan
from optimize.source.acquire import acquire_checkpoint
from optimize.source.card import read_card
from optimize.stages import STAGES
from optimize.targets import TARGETS


@dataclass(frozen=True)
class Loaded:
    """A plan's checkpoint and data, ready to work on."""

    plan: Plan
    origin: cache.Entry
    config: Mapping[str, Any]
    splits: Splits
    progress: Progress
    thresholds: Mapping[str, float] = field(default_factory=dict)
    """What the head fixed on tuning data, with this checkpoint before any stage."""
    card: SourceCard = field(default_factory=SourceCard)
    encoded: dict[tuple[str, Path, int], Encoded] = field(default_factory=dict, repr=False, compare=False)
    """Splits as a tokenizer has them, by name, tokenizer and longest text: once for all that is made of this one."""

    @property
    def max_tokens(self) -> int:
        """Tokens that texts are cut to; never more than the model takes."""
        plan = self.plan
        return token_limit(plan.head, self.origin.artifact.path, asked=plan.request.max_tokens, longest=self.longest)

    @property
    def longest(self) -> int:
        """The most tokens that the checkpoint and whatever is built from it take."""
        positions = int(self.config["max_position_embeddings"])
        return min(positions, self.plan.longest or positions)

    @functools.cached_property
    def text(self) -> Text:
        """The checkpoint's tokenizer."""
        return read_text(self.origin.artifact.path, self.max_tokens)

    @functools.cached_property
    def context(self) -> Context:
        """What stages may look at; certification is not in it."""
        head, request = self.plan.head, self.plan.request
        context = Context(
            head=head,
            reference=self.origin.artifact,
            calibration=self.calibration,
            tuning=self.tuning,
            training=self._encode("training"),
            limits=self.plan.pipeline.gates.on_accuracy(),
            seed=request.seed,
            threads=request.threads,
            cpu_features=environment.cpu_features(),
            progress=self.progress,
            open=functools.partial(open_folder, head=head, threads=request.threads),
            time_stacks=lambda stacks, tokens: time_stacks(
                stacks, tokens, target=self.plan.target, runtime=self.settings, context=context
            ),
            retokenize=self.tuning_split,
        )
        return context

    @property
    def settings(self) -> Params:
        """What the target runs models with: for their numerics alone, where they are only built."""
        plan = self.plan
        if not plan.build_only:
            return plan.pipeline.runtime
        return plan.pipeline.with_runtime(plan.target.numerics, where="numerics").runtime

    @functools.cached_property
    def calibration(self) -> Encoded:
        """The split that stages may look at."""
        return self._encode("calibration")

    @functools.cached_property
    def tuning(self) -> Encoded:
        """The split that stages, and the choice among candidates, may be tuned on."""
        return self._encode("tuning")

    @functools.cached_property
    def tuning_split(self) -> Split:
        """The same as any model's own tokenizer splits it."""
        return self._split(self.splits.tuning, self.tuning)

    @functools.cached_property
    def certification(self) -> Encoded:
        """The split that judges."""
        return self._encode("certification")

    @functools.cached_property
    def certification_split(self) -> Split:
        """The same as any model's own tokenizer splits it."""
        return self._split(self.splits.certification, self.certification)

    def _encode(self, name: str) -> Encoded:
        key = name, self.origin.artifact.path, self.max_tokens
        if key not in self.encoded:
            self.encoded[key] = encode(self.plan.head, getattr(self.splits, name), self.text)
        return dataclasses.replace(self.encoded[key], thresholds=self.thresholds)

    def _split(self, rows: tuple[Any, ...], known: Encoded) -> Split:
        return split_by_tokenizer(self.plan.head, rows, self.max_tokens, {self.origin.artifact.path: known})


@dataclass(frozen=True)
class Made:
    """What a run made and measured; the last measurement is the model's, which `target` runs with `runtime`.

    `candidates` is what was chosen from, `probes` what a search tried before; `checkpoint` what PyTorch loads, where a
    stage made one.
    """

    records: list[StageRecord]
    model: Artifact
    results: Results
    target: Target
    candidates: list[Candidate] = field(default_factory=list)
    runtime: Params = field(default_factory=Params)
    checkpoint: Artifact | None = None
    probes: list[Probe] = field(default_factory=list)


@dataclass(frozen=True)
class Folded:
    """What stages made, one after the other, and the checkpoint and data as the next one sees them."""

    loaded: Loaded
    records: tuple[StageRecord, ...] = ()
    artifacts: tuple[Artifact, ...] = ()

    @property
    def last(self) -> Artifact:
        """What the next stage takes."""
        return self.artifacts[-1] if self.artifacts else self.loaded.origin.artifact


def open_folder(kind: Kind, folder: Path, *, head: Head, threads: int) -> Session:
    """Open a model folder on this machine's CPU."""
    return KINDS[kind].open(folder, threads, head)


def load(plan: Plan, progress: Progress, *, thresholds: Mapping[str, float] | None = None) -> Loaded:
    """Get the checkpoint in FP32 and the data in splits; `thresholds` are those of another run, to be kept."""
    progress.say(f"checkpoint: {plan.request.model}")
    origin = acquire_checkpoint(plan.found, plan.head, root=plan.cache, seed=plan.request.seed, progress=progress)
    card = read_card(plan.found)
    return dataclasses.replace(load_data(plan, origin, progress, thresholds=thresholds), card=card)


def load_data(
    plan: Plan, origin: cache.Entry, progress: Progress, *, thresholds: Mapping[str, float] | None = None
) -> Loaded:
    """The data of a plan, matched to a checkpoint."""
    config = read_config(origin.artifact.path)
    progress.say(f"data: {plan.request.data}")
    splits = load_splits(plan.wanted, plan.head, config, progress=progress)
    for note in splits.notes:
        progress.say(note)
    loaded = Loaded(plan, origin, config, splits, progress)
    found = fit_thresholds(loaded) if thresholds is None else thresholds
    return dataclasses.replace(loaded, thresholds=found) if found else loaded


def fit_thresholds(loaded: Loaded) -> dict[str, float]:
    """What the head fixes with the FP32 reference's answers on tuning data, or on calibration data where none is left.

    All models are judged with it, as an application keeps its threshold when it changes models.
    """
    head, folder = loaded.plan.head, loaded.origin.artifact.path
    encoded = loaded.tuning if loaded.tuning.gold else loaded.calibration
    if head.fit is None or not head.fit.needed(encoded):
        return {}
    session = open_folder("torch", folder, head=head, threads=loaded.plan.request.threads)
    outputs = run_split(session, head, encoded, pad_id=pad_id_of(folder), progress=loaded.progress)
    found = head.fit.thresholds(encoded, outputs.answers)
    for name, value in found.items():
        loaded.progress.say(f"threshold {name}: {value:.4f}, fixed on tuning data with the FP32 reference")
    return found


def build(loaded: Loaded) -> tuple[list[StageRecord], list[Subject]]:
    """Carry out the pipeline's stages; their records, and their results under the stages' names.

    Results that the target runs are run there, checkpoints in PyTorch; what lies between the two is not measured.
    """
    target, settings = loaded.plan.target, loaded.settings
    records, artifacts = fold(loaded, loaded.plan.pipeline.stages)
    subjects = []
    for name, artifact in zip(stage_names(records), artifacts, strict=True):
        if artifact.kind == target.runs:
            subjects.append(Subject(name, artifact, target.name, settings))
        elif artifact.kind == "torch":
            subjects.append(Subject(name, artifact, "pytorch", target.pytorch(settings)["pytorch-fp32"]))
    return records, subjects


def reference_subjects(loaded: Loaded) -> list[Subject]:
    """PyTorch's references, FP32 first, and the own FP32 reference of each target that something is built for."""
    plan = loaded.plan
    first = [next(each for each in plan.pipelines if each.target == target) for target in plan.targets]
    return [*pytorch_subjects(loaded), *(own_reference(loaded, each.target, each.runtime) for each in first)]


def own_reference(loaded: Loaded, name: str, settings: Params) -> Subject:
    """The plain conversion for the target `name`, run with these settings of it but for what a reference fixes."""
    target = TARGETS[name]
    runtime = parse_runtime({**settings.model_dump(), **target.reference_runtime}, name, where="reference")
    steps = tuple(parse_step({name: dict(params)}, where="reference") for name, params in target.reference)
    _, artifacts = fold(loaded, steps)
    return Subject(f"{name}-fp32", artifacts[-1], name, runtime, reference=True)


def pytorch_subjects(loaded: Loaded) -> list[Subject]:
    """The checkpoint in PyTorch, in all the ways that the target is compared with; FP32 comes first."""
    ways = loaded.plan.target.pytorch(loaded.settings)
    return [Subject(name, loaded.origin.artifact, "pytorch", way, reference=True) for name, way in ways.items()]


def device_of(loaded: Loaded) -> DeviceMemory | None:
    """The target's device, where it has memory of its own."""
    target = loaded.plan.target
    if target.memory is None:
        return None
    return DeviceMemory(functools.partial(target.memory, loaded.settings))


def fold(loaded: Loaded, steps: Sequence[Step]) -> tuple[list[StageRecord], list[Artifact]]:
    """Run the stages one after the other on what the one before gave."""
    folded = go_on(Folded(loaded), steps)
    return list(folded.records), list(folded.artifacts)


def go_on(folded: Folded, steps: Iterable[Step]) -> Folded:
    """The same with more stages run on its last result.

    What has a tokenizer of its own is the reference of all that comes after: there texts are split as it does.
    """
    for step in steps:
        loaded, artifact = folded.loaded, folded.last
        entry = run_stage(loaded, step, artifact)
        artifact = entry.artifact
        loaded.progress.say(f"stage {step.stage}: {'cached' if entry.cached else f'{entry.seconds:.1f} s'}")
        record = StageRecord(
            stage=step.stage,
            params=step.params.model_dump(mode="json"),
            facts=entry.facts,
            seconds=round(entry.seconds, 3),
            cached=entry.cached,
            key=entry.key,
            artifact=ArtifactRecord(kind=artifact.kind, digest=artifact.digest, size_bytes=artifact.size_bytes),
        )
        if tokenizer_digest(artifact.path) != tokenizer_digest(loaded.origin.artifact.path):
            loaded = dataclasses.replace(loaded, origin=entry, config=read_config(artifact.path))
        folded = Folded(loaded, (*folded.records, record), (*folded.artifacts, artifact))
    return folded


def last_checkpoint(artifacts: Iterable[Artifact]) -> Artifact | None:
    """The last of a pipeline's results that PyTorch loads, if any is."""
    return next((each for each in reversed(list(artifacts)) if each.kind == "torch"), None)


def say_if_cached(loaded: Loaded, records: Iterable[StageRecord]) -> None:
    """Say so where no stage had to be carried out."""
    if all(record.cached for record in records):
        loaded.progress.say("nothing to redo: every stage is in the cache")


def run_stage(loaded: Loaded, step: Step, artifact: Artifact) -> cache.Entry:
    """One stage, from the cache or carried out."""
    stage, request = STAGES[step.stage], loaded.plan.request
    material: dict[str, Any] = {
        "stage": step.stage,
        "params": params_of(step),
        "input": artifact.digest,
        "reference": loaded.origin.artifact.digest,
        "head": loaded.plan.head.key,
        "data": {name: loaded.splits.records[name].digest for name in ("calibration", "tuning")},
        "max_tokens": loaded.max_tokens,
        "seed": request.seed,
        "versions": {name: environment.version(name) for name in stage.needs},
        **{name: material_of(loaded, name) for name in sorted(stage.depends(step.params))},
    }

    root = loaded.plan.cache
    scratch = cache.scratch_of(root, material)

    def build(out: Path) -> Facts:
        context = dataclasses.replace(loaded.context, scratch=scratch)
        with private_params(step, material["params"], root) as params:
            facts = stage.run(artifact, out, params, context)
        copy_companions(artifact.path, artifact.kind, out)
        for read in {artifact, context.reference}:
            require_unchanged(read)
        return facts

    return cache.fetch(root, material, stage.gives, build, progress=loaded.progress)


def require_unchanged(artifact: Artifact) -> None:
    """Refuse what was made of a folder that somebody changed meanwhile: it would be kept as made of what it was."""
    if folder_digest(artifact.path) != artifact.digest:
        raise StageError(f"{artifact.path}: changed while it was read; run again, and it is built anew")


def params_of(step: Step) -> dict[str, Any]:
    """What stands in a cache key for a stage's parameters: of files, what they hold in place of where they lie."""
    values: dict[str, Any] = step.params.model_dump(mode="json")
    return values | {name: digests_of(files) for name, files in files_read(step).items()}


@contextmanager
def private_params(step: Step, known: Mapping[str, Any], root: Path) -> Iterator[Params]:
    """A stage's parameters, with the files that they name copied, so that what is read is what the key is made of."""
    with ExitStack() as stack:
        copies = {}
        for name, files in files_read(step).items():
            folder = stack.enter_context(private_copy(files, known[name], root))
            named = Path(getattr(step.params, name)).expanduser()
            copies[name] = folder if named.is_dir() else folder / next(iter(files))
        yield step.params.model_copy(update=copies)


def files_read(step: Step) -> dict[str, Files]:
    """The files that a stage's parameters name, by the parameter."""
    values = {name: getattr(step.params, name) for name in STAGES[step.stage].reads}
    return {name: files_below(Path(path).expanduser(), name) for name, path in values.items() if path is not None}


def material_of(loaded: Loaded, name: str) -> object:
    """What stands in a cache key for a part of the context that a stage depends on."""
    match name:
        case "limits":
            return loaded.plan.pipeline.gates.on_accuracy().model_dump()
        case "optimum":
            return environment.version("optimum-onnx")
        case "training":
            return loaded.splits.records["training"].digest
        case "target":
            plan = loaded.plan
            settings, machine = loaded.settings, environment.detect()
            return {
                "target": plan.target.name,
                "runtime": settings.model_dump(mode="json"),
                "threads": plan.request.threads,
                "machine": [machine.cpu, *(str(each) for each in plan.target.describe(settings).values())],
                "versions": {name: environment.version(name) for name in plan.target.needs},
            }
        case _:
            return list(environment.cpu_features())


def stage_names(records: list[StageRecord]) -> list[str]:
    """Names of the stages' results; a stage that comes twice is numbered."""
    names: list[str] = []
    for record in records:
        count = sum(other.split("#")[0] == record.stage for other in names)
        names.append(f"{record.stage}#{count + 1}" if count else record.stage)
    return names
