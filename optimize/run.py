"""Carry out a plan: fold the stages over the model, measure, judge, and write the manifest last.

Nothing is redone that the cache holds. The context that stages see (tokenized calibration and
tuning rows) is made only when a stage really runs. A run folder is assembled under a name of its
own and renamed when it is complete, so a folder with a manifest is a finished run.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import json
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from optimize import cache, data, environment, gates, manifest, source
from optimize.artifact import Artifact, Kind, copy_companions
from optimize.config import Step, parse_pipeline, parse_step
from optimize.errors import RequestError, StageError
from optimize.interfaces import Budget, Context, Encoded, Facts, Head, Progress, Score, Session, Text
from optimize.manifest import ArtifactRecord, Manifest, Measurement, Source, StageRecord, Verdict
from optimize.measure.latency import Settings, Workload
from optimize.measure.subjects import Method, Results, Subject, measure_subjects
from optimize.plan import Options, Plan, make_plan
from optimize.report.markdown import render
from optimize.stages import STAGES
from optimize.targets import cpu
from optimize.targets._torch import open_torch

DEFAULT_CONFIDENCE = 0.95
GEOMETRY = ("n_layers", "dim", "n_heads", "hidden_dim", "vocab_size", "max_position_embeddings", "activation")


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
        return min(
            self.plan.request.max_tokens or self.plan.head.max_tokens, int(self.config["max_position_embeddings"])
        )

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
        return Context(
            head=head,
            reference=self.origin.artifact,
            calibration=encode(head, self.splits.calibration, self.text),
            tuning=encode(head, self.splits.tuning, self.text),
            training=encode(head, self.splits.training, self.text),
            budget=self.budget,
            seed=request.seed,
            threads=request.threads,
            cpu_features=environment.cpu_features(),
            progress=self.progress,
            open=functools.partial(open_folder, head=head, threads=request.threads),
        )

    @property
    def budget(self) -> Budget:
        """What the gates allow to be lost."""
        limits = self.plan.pipeline.gates
        return Budget(limits.max_metric_drop, limits.max_relative_metric_drop, limits.min_agreement)

    @functools.cached_property
    def certification(self) -> Encoded:
        """The split that judges."""
        return encode(self.plan.head, self.splits.certification, self.text)


def encode(head: Head, rows: tuple[Any, ...], text: Text) -> Encoded:
    """Tokenized rows; none give none."""
    return head.encode(rows, text) if rows else Encoded((), (), 0)


def open_folder(kind: Kind, folder: Path, *, head: Head, threads: int) -> Session:
    """Open a model folder on this machine's CPU."""
    if kind == "torch":
        return open_torch(folder, threads, head)
    if kind == "onnx":
        return cpu.open_session(folder, threads, head)
    raise StageError(f"{folder}: no session opens {kind} models here; check the stage that asked")


def run(plan: Plan, *, progress: Progress) -> tuple[Path, Manifest]:
    """Carry out a plan; the run's folder and its manifest."""
    loaded = load(plan, progress)
    records, built = build(loaded)
    if all(record.cached for record in records):
        progress.say("nothing to redo: every stage is in the cache")
    if plan.build_only:
        results, verdict = Results([], {}), Verdict(outcome="unverified", checks=[])
    else:
        results = measure(loaded, built)
        verdict = gates.judge(plan.pipeline.gates, results.measurements[-1])
    result = describe(loaded, records, results.measurements, verdict)
    folder = write_run(plan.out, result, built[-1].artifact.path, scores=results.scores)
    return folder, result


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
    """Carry out the pipeline's stages; their records, and their results under the stages' names."""
    target = loaded.plan.target.name
    records, artifacts = fold(loaded, loaded.plan.pipeline.stages)
    named = zip(stage_names(records), artifacts, strict=True)
    return records, [Subject(name, artifact, target) for name, artifact in named]


def reference_subjects(loaded: Loaded) -> list[Subject]:
    """The PyTorch FP32 reference, and the target's own FP32 reference."""
    target = loaded.plan.target
    steps = tuple(parse_step({name: dict(params)}, where="reference") for name, params in target.reference)
    _, artifacts = fold(loaded, steps)
    return [
        Subject("pytorch-fp32", loaded.origin.artifact, "pytorch"),
        Subject(f"{target.name}-fp32", artifacts[-1], target.name),
    ]


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
        **{name: material_of(loaded, name) for name in sorted(stage.depends)},
    }

    def build(out: Path) -> Facts:
        facts = stage.run(artifact, out, step.params, loaded.context)
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
        case _:
            return list(environment.cpu_features())


def stage_names(records: list[StageRecord]) -> list[str]:
    """Names of the stages' results; a stage that comes twice is numbered."""
    names: list[str] = []
    for record in records:
        count = sum(other.split("#")[0] == record.stage for other in names)
        names.append(f"{record.stage}#{count + 1}" if count else record.stage)
    return names


def measure(loaded: Loaded, built: list[Subject]) -> Results:
    """Measure the references and what was built."""
    plan = loaded.plan
    subjects = [*reference_subjects(loaded), *built]
    confidence = plan.pipeline.gates.confidence or DEFAULT_CONFIDENCE
    workload = Workload(
        features=loaded.certification.features,
        vocab_size=loaded.config["vocab_size"],
        max_positions=loaded.config["max_position_embeddings"],
        pad_id=loaded.config.get("pad_token_id", 0),
        seed=plan.request.seed,
    )
    method = Method(plan.head, workload, tuple(plan.request.shapes), Settings(plan.request.threads), confidence)
    return measure_subjects(subjects, loaded.certification, method=method, progress=loaded.progress)


def describe(loaded: Loaded, records: list[StageRecord], measurements: list[Measurement], verdict: Verdict) -> Manifest:
    """The manifest of a run."""
    plan, origin = loaded.plan, loaded.origin
    splits = dict(loaded.splits.records)
    if measurements:
        truncated = loaded.certification.truncated
        splits["certification"] = splits["certification"].model_copy(update={"truncated": truncated})
    return Manifest(
        id=secrets.token_hex(4),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        request=plan.request,
        environment=environment.detect(),
        source=Source(
            kind=plan.found.kind,
            id=plan.found.id,
            revision=plan.found.revision,
            digest=origin.artifact.digest,
            stored_as=str(origin.facts["stored_as"]),
            geometry={name: loaded.config[name] for name in GEOMETRY},
        ),
        data=splits,
        stages=records,
        measurements=measurements,
        verdict=verdict,
    )


def write_run(out: Path, result: Manifest, model: Path, *, scores: Mapping[str, Score]) -> Path:
    """Write the run's folder: model, scores per example, report, and the manifest last."""
    stamp = result.created.replace(":", "").replace("-", "").replace("+0000", "Z")
    name = f"{stamp}-{Path(result.request.pipeline).stem}-{result.request.head}-{result.id}"
    partial = out / f".{name}.partial"
    try:
        shutil.copytree(model, partial / "model")
        write_scores(scores, partial)
        (partial / "report.md").write_text(render(result), encoding="utf-8")
        manifest.write(result, partial)
        partial.rename(out / name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out / name


def write_scores(scores: Mapping[str, Score], folder: Path) -> None:
    """Write `scores.npz`: for each model its statistics [N, k] and, where it can be said, what was right [N]."""
    import numpy as np

    arrays = {f"{name}/statistics": score.statistics for name, score in scores.items()}
    arrays |= {f"{name}/right": score.right for name, score in scores.items() if score.right is not None}
    if arrays:
        np.savez_compressed(folder / "scores.npz", allow_pickle=False, **arrays)


def check(
    folder: Path, *, model: str | None, data: str | None, cache: Path | None, progress: Progress
) -> tuple[Path, Manifest]:
    """Measure and judge a finished run's model on this machine, and rewrite its manifest and report.

    `model` and `data` say where the checkpoint and the data lie here, if not where they were.
    Refuses a model, checkpoint or data that are not those of the run.
    """
    old = manifest.read(folder)
    final = manifest.final_model(folder, old)
    asked = {"target": old.request.target, "stages": old.request.stages, "gates": old.request.gates}
    pipeline = parse_pipeline(asked, name=old.request.pipeline, where=f"{folder}/manifest.json")
    plan = make_plan(options_of(old, model=model, data=data, cache=cache, out=folder.parent), pipeline)
    plan = replace(plan, request=old.request)
    loaded = load(plan, progress)
    _require_same(folder, old, loaded)
    results = measure(loaded, [Subject(stage_names(old.stages)[-1], final, plan.target.name)])
    verdict = gates.judge(pipeline.gates, results.measurements[-1])
    new = describe(loaded, old.stages, results.measurements, verdict)
    new = new.model_copy(update={"id": old.id, "source": old.source})
    write_scores(results.scores, folder)
    (folder / "report.md").write_text(render(new), encoding="utf-8")
    manifest.write(new, folder)
    return folder, new


def options_of(old: Manifest, *, model: str | None, data: str | None, cache: Path | None, out: Path) -> Options:
    """The options that make the plan of a manifest's request again."""
    request = old.request
    return Options(
        target=request.target,
        head=request.head,
        model=model or request.model,
        revision=None if model else request.revision,
        data=data or request.data,
        data_config=None if data else request.data_config,
        data_revision=None if data else request.data_revision,
        columns=request.columns,
        certify_on=request.certify_on,
        examples=request.examples,
        calibration_examples=request.calibration_examples,
        tuning_examples=request.tuning_examples,
        training_examples=request.training_examples or Options.training_examples,
        max_tokens=request.max_tokens,
        shapes=tuple(request.shapes),
        threads=request.threads,
        pipeline=request.pipeline,
        seed=request.seed,
        out=out,
        cache=cache,
    )


def _require_same(folder: Path, old: Manifest, loaded: Loaded) -> None:
    if loaded.origin.artifact.digest != old.source.digest:
        raise RequestError(f"{folder}: the checkpoint is not the one of the manifest; give it with --model")
    for name, split in loaded.splits.records.items():
        if split.digest != old.data[name].digest:
            raise RequestError(f"{folder}: split '{name}' is not the one of the manifest; give the data with --data")
