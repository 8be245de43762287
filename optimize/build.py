"""Build a plan: its checkpoint and data, and stages folded over the model.

Nothing is redone that the cache holds. The context that stages see (tokenized calibration and
tuning rows) is made only when a stage really runs.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optimize import cache, data, environment, source
from optimize.artifact import Artifact, Kind, copy_companions
from optimize.config import Step, parse_step
from optimize.half_precision import open_rounded
from optimize.interfaces import Budget, Context, Encoded, Facts, Head, Params, Progress, Session, Text
from optimize.manifest import ArtifactRecord, Candidate, StageRecord
from optimize.measure.latency import DeviceMemory
from optimize.measure.stacks import time_stacks
from optimize.measure.subjects import Results, Subject
from optimize.plan import Plan
from optimize.stages import STAGES
from optimize.targets import openvino
from optimize.targets._torch import TorchRuntime, open_torch


@dataclass(frozen=True)
class Loaded:
    """A plan's checkpoint and data, ready to work on."""

    plan: Plan
    origin: cache.Entry
    config: Mapping[str, Any]
    splits: data.Splits
    progress: Progress

    @property
    def max_tokens(self) -> int:
        """Tokens that texts are cut to: as asked for, within the head's and the model's limits."""
        return min(self.plan.request.max_tokens or self.plan.head.max_tokens, self.longest)

    @property
    def longest(self) -> int:
        """The most tokens that the checkpoint and whatever is built from it take."""
        positions = int(self.config["max_position_embeddings"])
        return min(positions, self.plan.longest or positions)

    @functools.cached_property
    def text(self) -> Text:
        """The checkpoint's tokenizer."""
        import transformers

        transformers.utils.logging.set_verbosity_error()
        tokenizer = transformers.AutoTokenizer.from_pretrained(self.origin.artifact.path, local_files_only=True)
        return Text(tokenizer, self.config, self.max_tokens)

    @functools.cached_property
    def context(self) -> Context:
        """What stages may look at; certification is not in it."""
        head, request = self.plan.head, self.plan.request
        context = Context(
            head=head,
            reference=self.origin.artifact,
            calibration=encode(head, self.splits.calibration, self.text),
            tuning=self.tuning,
            training=encode(head, self.splits.training, self.text),
            budget=self.budget,
            seed=request.seed,
            threads=request.threads,
            cpu_features=environment.cpu_features(),
            progress=self.progress,
            open=functools.partial(open_folder, head=head, threads=request.threads),
            time_stacks=lambda stacks, tokens: time_stacks(
                stacks, tokens, target=self.plan.target, runtime=self.settings, context=context
            ),
        )
        return context

    @property
    def settings(self) -> Params:
        """What the target runs models with: for their numerics alone, where they are only built."""
        plan = self.plan
        if not plan.build_only:
            return plan.pipeline.runtime
        return plan.pipeline.with_runtime(plan.target.numerics, where="numerics").runtime

    @property
    def budget(self) -> Budget:
        """What the gates allow to be lost."""
        limits = self.plan.pipeline.gates
        return Budget(limits.max_metric_drop, limits.max_relative_metric_drop, limits.min_agreement, limits.confidence)

    @functools.cached_property
    def tuning(self) -> Encoded:
        """The split that stages, and the choice among candidates, may be tuned on."""
        return encode(self.plan.head, self.splits.tuning, self.text)

    @functools.cached_property
    def certification(self) -> Encoded:
        """The split that judges."""
        return encode(self.plan.head, self.splits.certification, self.text)


@dataclass(frozen=True)
class Made:
    """What a run made and measured; the last measurement is the model's, which runs with `runtime`.

    `candidates` is what was chosen from.
    """

    records: list[StageRecord]
    model: Artifact
    results: Results
    candidates: list[Candidate] = field(default_factory=list)
    runtime: Params = field(default_factory=Params)


def encode(head: Head, rows: tuple[Any, ...], text: Text) -> Encoded:
    """Tokenized rows; none give none."""
    return head.encode(rows, text) if rows else Encoded((), (), 0)


def open_folder(kind: Kind, folder: Path, *, head: Head, threads: int) -> Session:
    """Open a model folder on this machine's CPU."""
    if kind == "torch":
        return open_torch(folder, threads, head, TorchRuntime())
    if kind == "onnx":
        return open_rounded(folder, threads, head)
    return openvino.open_session(folder, threads, head, openvino.Runtime())


def load(plan: Plan, progress: Progress) -> Loaded:
    """Get the checkpoint in FP32 and the data in splits."""
    progress.say(f"checkpoint: {plan.request.model}")
    origin = source.acquire(plan.found, plan.head, root=plan.cache, seed=plan.request.seed, progress=progress)
    return load_data(plan, origin, progress)


def load_data(plan: Plan, origin: cache.Entry, progress: Progress) -> Loaded:
    """The data of a plan, matched to a checkpoint."""
    config = json.loads((origin.artifact.path / "config.json").read_text(encoding="utf-8"))
    progress.say(f"data: {plan.request.data}")
    splits = data.load(plan.wanted, plan.head, config, cache=plan.cache)
    return Loaded(plan, origin, config, splits, progress)


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
    """PyTorch's references, FP32 first, and the target's own FP32 reference."""
    target = loaded.plan.target
    pipeline = loaded.plan.pipeline.with_runtime(target.reference_runtime, where="reference")
    steps = tuple(parse_step({name: dict(params)}, where="reference") for name, params in target.reference)
    _, artifacts = fold(loaded, steps)
    return [
        *pytorch_subjects(loaded),
        Subject(f"{target.name}-fp32", artifacts[-1], target.name, pipeline.runtime, reference=True),
    ]


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


def fold(loaded: Loaded, steps: tuple[Step, ...]) -> tuple[list[StageRecord], list[Artifact]]:
    """Run the stages one after the other on what the one before gave."""
    records, artifacts = [], []
    artifact = loaded.origin.artifact
    for step in steps:
        entry = run_stage(loaded, step, artifact)
        artifact = entry.artifact
        loaded.progress.say(f"stage {step.stage}: {'cached' if entry.cached else f'{entry.seconds:.1f} s'}")
        records.append(
            StageRecord(
                stage=step.stage,
                params=step.params.model_dump(mode="json"),
                facts=entry.facts,
                seconds=round(entry.seconds, 3),
                cached=entry.cached,
                key=entry.key,
                artifact=ArtifactRecord(kind=artifact.kind, digest=artifact.digest, size_bytes=artifact.size_bytes),
            )
        )
        artifacts.append(artifact)
    return records, artifacts


def say_if_cached(loaded: Loaded, records: Iterable[StageRecord]) -> None:
    """Say so where no stage had to be carried out."""
    if all(record.cached for record in records):
        loaded.progress.say("nothing to redo: every stage is in the cache")


def run_stage(loaded: Loaded, step: Step, artifact: Artifact) -> cache.Entry:
    """One stage, from the cache or carried out."""
    stage, request = STAGES[step.stage], loaded.plan.request
    material: dict[str, object] = {
        "stage": step.stage,
        "params": step.params.model_dump(mode="json"),
        "input": artifact.digest,
        "reference": loaded.origin.artifact.digest,
        "head": request.head,
        "data": {name: loaded.splits.records[name].digest for name in ("calibration", "tuning")},
        "max_tokens": loaded.max_tokens,
        "seed": request.seed,
        "versions": {name: environment.version(name) for name in stage.needs},
        **{name: material_of(loaded, name) for name in sorted(stage.depends(step.params))},
    }

    scratch = cache.scratch_of(loaded.plan.cache, material)

    def build(out: Path) -> Facts:
        facts = stage.run(artifact, out, step.params, dataclasses.replace(loaded.context, scratch=scratch))
        copy_companions(artifact.path, artifact.kind, out)
        return facts

    return cache.fetch(loaded.plan.cache, material, stage.gives, build)


def material_of(loaded: Loaded, name: str) -> object:
    """What stands in a cache key for a part of the context that a stage depends on."""
    match name:
        case "budget":
            return dataclasses.asdict(loaded.budget)
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
