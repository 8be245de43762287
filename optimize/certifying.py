"""Judge a finished run's model again, on this machine and without building it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from optimize import gates, manifest
from optimize.building import Loaded, Made, load, stage_names
from optimize.config import Pipeline, parse_pipeline
from optimize.errors import RequestError
from optimize.interfaces import Progress
from optimize.manifest import Manifest
from optimize.measure.subjects import Subject
from optimize.planning import Options, make_plan
from optimize.report.write import write_report
from optimize.running import describe, measure, write_scores


def certify(
    folder: Path, *, model: str | None, data: str | None, cache: Path | None, progress: Progress
) -> tuple[Path, Manifest]:
    """Measure and judge a finished run's model on this machine, and rewrite its manifest and report.

    `model` and `data` say where the checkpoint and the data lie here, if not where they were.
    Refuses a model, checkpoint or data that are not those of the run.
    """
    old = manifest.read(folder)
    final = manifest.final_model(folder, old)
    pipeline = pipeline_of(old, where=f"{folder}/manifest.json")
    plan = make_plan(options_of(old, model=model, data=data, cache=cache, out=folder.parent), pipeline, built=True)
    plan = replace(plan, request=old.request)
    loaded = load(plan, progress)
    _require_same(folder, old, loaded)
    results = measure(loaded, [Subject(result_name(old), final, pipeline.target, pipeline.runtime)])
    verdict = gates.judge(pipeline.gates, results.measurements[-1])
    candidates = [each if each.chosen else each.model_copy(update={"measurement": None}) for each in old.candidates]
    new = describe(loaded, Made(old.stages, final, results, candidates, pipeline.runtime), verdict)
    new = new.model_copy(update={"id": old.id, "source": old.source})
    write_scores(results.scores, folder)
    write_report(new, folder)
    manifest.write(new, folder)
    return folder, new


def pipeline_of(old: Manifest, *, where: str) -> Pipeline:
    """The pipeline that a run was asked for; refuse one whose words this version does not know any more."""
    asked = {name: getattr(old.request, name) for name in ("target", "stages", "runtime", "gates")}
    try:
        return parse_pipeline(asked, name=old.request.pipeline, where="its pipeline")
    except RequestError as error:
        raise RequestError(
            f"{where}: was written by another version ({error}); run the pipeline again, or check it with that version"
        ) from error


def result_name(old: Manifest) -> str:
    """What a run's result is called among its measurements: the chosen candidate, or the last stage."""
    return next((each.pipeline for each in old.candidates if each.chosen), stage_names(old.stages)[-1])


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
