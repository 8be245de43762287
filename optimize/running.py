"""Carry out a plan: build, measure, judge, and write the manifest last.

A run folder is assembled under a name of its own and renamed when it is complete, so a folder with
a manifest is a finished run.
"""

from __future__ import annotations

import datetime
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from optimize import examples, gates, manifest
from optimize.artifact import copy_sealed
from optimize.building import (
    Loaded,
    Made,
    build,
    device_of,
    last_checkpoint,
    load,
    pytorch_subjects,
    reference_subjects,
    say_if_cached,
)
from optimize.choosing import try_candidates
from optimize.data.tokenized import fewest_tokens
from optimize.evaluate.judge import pad_id_of
from optimize.examples import Example
from optimize.files.arrays import put_arrays
from optimize.files.assembling import assembled
from optimize.foresight import foresee
from optimize.interfaces import Array, Progress
from optimize.machine import environment
from optimize.manifest import Manifest, SentenceRecord, Source, Verdict
from optimize.measure.latency import Settings, Workload
from optimize.measure.subjects import Method, Results, Subject, measure_subjects
from optimize.planning import Plan
from optimize.report.write import write_report
from optimize.scores import write_scores
from optimize.sentences.layout import SentenceEncoder

GEOMETRY = ("n_layers", "dim", "n_heads", "hidden_dim", "vocab_size", "max_position_embeddings", "activation")


def run(plan: Plan, *, progress: Progress) -> tuple[Path, Manifest]:
    """Carry out a plan; the run's folder and its manifest."""
    if plan.added_shape and not plan.build_only:
        progress.say(f"latency: also at {plan.added_shape}, where the limit on the speed-up is judged")
    loaded = load(plan, progress)
    count = loaded.splits.records["certification"].count
    if count < plan.request.examples and (foreseen := foresee(plan.pipeline.gates, count)):
        progress.say(f"certification: {foreseen}")
    made = try_candidates(loaded, partial(method_of, loaded)) if plan.candidates else carry_out(loaded)
    measured = made.results.measurements
    verdict = gates.judge(plan.pipeline.gates, measured[-1]) if measured else Verdict(outcome="unverified", checks=[])
    if plan.build_only and verdict.outcome == "passed":
        verdict = verdict.model_copy(update={"outcome": "unverified"})  # proven elsewhere, if at all
    result = describe(loaded, made, verdict)
    return write_run(plan.out, result, made), result


def carry_out(loaded: Loaded) -> Made:
    """Carry out the plan's one pipeline and measure every stage's result; where it is only to be built, its answers."""
    records, built = build(loaded)
    say_if_cached(loaded, records)
    if not loaded.plan.build_only:
        results = measure(loaded, built)
    elif loaded.plan.target.numerics:
        results = measure_answers(loaded, built[-1])
    else:
        results = Results([], {})
    checkpoint = last_checkpoint(each.artifact for each in built)
    plan = loaded.plan
    return Made(records, built[-1].artifact, results, plan.target, runtime=plan.pipeline.runtime, checkpoint=checkpoint)


def measure(loaded: Loaded, built: list[Subject]) -> Results:
    """Measure the references and what was built."""
    subjects = [*reference_subjects(loaded), *built]
    method = method_of(loaded, subjects)
    return measure_subjects(subjects, loaded.certification_split, method=method, progress=loaded.progress)


def measure_answers(loaded: Loaded, built: Subject) -> Results:
    """Metric, drift and size of what was built, computed on this machine in place of the target's; no times."""
    missing = loaded.plan.target.unavailable(loaded.plan.pipeline.runtime) or "it was only to be built"
    subjects = [pytorch_subjects(loaded)[0], built]
    method = replace(method_of(loaded, subjects), untimed=missing.split(";")[0])
    return measure_subjects(subjects, loaded.certification_split, method=method, progress=loaded.progress)


def method_of(loaded: Loaded, subjects: Sequence[Subject]) -> Method:
    """How a plan's models are measured; they are timed on token ids that all of them know."""
    plan = loaded.plan
    folder, vocab_size = fewest_tokens(each.artifact.path for each in subjects)
    workload = Workload(
        features=loaded.certification_split(folder).features,
        vocab_size=vocab_size,
        max_positions=loaded.longest,
        pad_id=pad_id_of(folder),
        seed=plan.request.seed,
    )
    confidence = plan.pipeline.gates.level
    settings = Settings(plan.request.threads)
    shapes = tuple(plan.request.shapes)
    zeros = any("sparse" in each.traits for each in (plan.pipeline, *plan.candidates))
    return Method(plan.head, workload, shapes, settings, confidence, device_of(loaded), compressed=zeros)


def describe(loaded: Loaded, made: Made, verdict: Verdict) -> Manifest:
    """The manifest of a run; its request holds the stages that were carried out and how their result runs."""
    plan, origin = loaded.plan, loaded.origin
    splits = dict(loaded.splits.records)  # a copy: how many texts were cut is known only now
    measurements = made.results.measurements
    stages = [{each.stage: each.params} for each in made.records]
    device = made.target.describe(loaded.settings if plan.build_only else made.runtime) if measurements else {}
    if measurements:
        judged, split = loaded.certification, splits["certification"]
        known = {"truncated": judged.truncated, "left_out": split.count - len(judged.gold)}
        splits["certification"] = split.model_copy(update=known)
    return Manifest(
        id=secrets.token_hex(4),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        request=replace(
            plan.request, target=made.target.name, stages=stages, runtime=made.runtime.model_dump(mode="json")
        ),
        environment=environment.detect().model_copy(update={"device": device}),
        source=Source(
            kind=plan.found.kind,
            id=plan.found.id,
            revision=plan.found.revision,
            digest=origin.artifact.digest,
            stored_as=str(origin.facts["stored_as"]),
            base=plan.found.base.id if plan.found.base else None,
            base_revision=plan.found.base.revision if plan.found.base else None,
            wrapper=str(origin.facts.get("wrapper", "")),
            left_out=str(origin.facts.get("left_out", "")),
            geometry={name: loaded.config[name] for name in GEOMETRY},
            card=loaded.card,
            sentence=sentence_of(plan.found.encoder),
        ),
        data=splits,
        thresholds=dict(loaded.thresholds),
        labels=loaded.splits.labels,
        stages=made.records,
        measurements=measurements,
        verdict=verdict,
        candidates=made.candidates,
        search=made.probes,
    )


def sentence_of(encoder: SentenceEncoder | None) -> SentenceRecord | None:
    """What the manifest says of a sentence encoder."""
    if encoder is None:
        return None
    return SentenceRecord(modules=encoder.words(), prompt=encoder.prompt, max_tokens=encoder.max_tokens)


def write_run(out: Path, result: Manifest, made: Made) -> Path:
    """Write the run's folder: model, what PyTorch loads of it, scores per example, report, and the manifest last."""
    stamp = result.created.replace(":", "").replace("-", "").replace("+0000", "Z")
    name = f"{stamp}-{Path(result.request.pipeline).stem}-{result.request.head}-{result.id}"
    # A killed process leaves at most a folder whose name begins with a dot, which nobody takes for a run.
    with assembled(out, name) as partial:
        copy_sealed(made.model, partial / manifest.MODEL)
        if made.checkpoint:
            copy_sealed(made.checkpoint, partial / manifest.CHECKPOINT)
        write_evidence(result, made.results, partial)
        write_report(result, partial)
        manifest.write(result, partial)
        partial.rename(out / name)
    return out / name


def write_evidence(result: Manifest, results: Results, folder: Path) -> None:
    """Write what is behind a manifest's numbers; without the data's texts, where the request wants none."""
    write_scores(results.scores, folder)
    write_runs(results.runs, folder)
    judged = result.measurements[-1].name if result.measurements else ""
    known = results.scores[judged].classes if judged in results.scores else None
    names = known.names if known else ()
    kept = [without_texts(each, names) for each in results.examples] if result.request.no_texts else results.examples
    if kept:
        examples.write(kept, folder)
    else:
        (folder / examples.FILE).unlink(missing_ok=True)


def without_texts(example: Example, classes: Collection[str]) -> Example:
    """The example without its texts, and without answers that may be parts of them: all that name no class."""

    def known(words: str | None) -> str | None:
        return words if words in classes else None

    theirs, ours = (
        each.model_copy(update={"answer": known(each.answer)}) for each in (example.reference, example.result)
    )
    kept = {"gold": known(example.gold), "reference": theirs, "result": ours}
    return example.model_copy(update={**kept, "texts": {}})


def write_runs(runs: Mapping[str, Mapping[str, Array]], folder: Path) -> None:
    """Write `latency.npz`: the seconds of every run, under the names of model and shape."""
    arrays = {f"{model}/{shape}": times for model, shapes in runs.items() for shape, times in shapes.items()}
    put_arrays(folder / manifest.RUNS, {name: times.astype("float32") for name, times in arrays.items()})
