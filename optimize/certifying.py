"""Judge a finished run's model again, on this machine and without building it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from optimize import compared, gates, manifest
from optimize.building import Loaded, Made, load
from optimize.config import Pipeline, parse_pipeline
from optimize.errors import RequestError
from optimize.finished import judged_model, read_run, result_name
from optimize.heads import find_head
from optimize.interfaces import Progress
from optimize.manifest import Manifest
from optimize.measure.subjects import Subject
from optimize.planning import make_plan
from optimize.report.write import write_report
from optimize.request import HeadCode, options_of
from optimize.running import describe, measure, write_evidence


def certify(
    folder: Path,
    *,
    model: str | None,
    data: str | None,
    cache: Path | str | None,
    progress: Progress,
    head: str | None = None,
) -> tuple[Path, Manifest]:
    """Measure and judge a finished run's model on this machine, and rewrite its manifest and report.

    `model` and `data` say where the checkpoint and the data lie here, if not where they were. `head` is the FILE:NAME
    of a head of the user's own, whose code is run.
    Refuses a model, checkpoint, data or head that are not those of the run.
    """
    old = read_run(folder)
    final = judged_model(folder, old)
    pipeline = pipeline_of(old, where=f"{folder / manifest.FILE}")
    options = options_of(old.request, out=folder.parent, cache=cache)
    if head or old.request.head_code:
        options = replace(options, head=_same_head(folder, head, old.request.head_code))
    if model:
        options = replace(options, model=model, revision=None)
    if data:
        options = replace(options, data=data, data_config=None, data_revision=None)
    plan = make_plan(options, pipeline, built=True, progress=progress)
    plan = replace(plan, request=old.request)
    loaded = load(plan, progress, thresholds=old.thresholds)
    _require_same(folder, old, loaded)
    results = measure(loaded, [Subject(result_name(old), final, pipeline.target, pipeline.runtime)])
    verdict = gates.judge(pipeline.gates, results.measurements[-1])
    candidates = [each if each.chosen else each.model_copy(update={"measurement": None}) for each in old.candidates]
    new = describe(loaded, Made(old.stages, final, results, plan.target, candidates, pipeline.runtime), verdict)
    new = new.model_copy(update={"id": old.id, "source": old.source})
    write_evidence(new, results, folder)
    (folder / compared.FILE).unlink(missing_ok=True)  # it compared what was measured before
    write_report(new, folder)
    manifest.write(new, folder)
    return folder, new


def _same_head(folder: Path, head: str | None, code: HeadCode | None) -> str:
    """The FILE:NAME of a run's head; refuse any other, and to run code that the command does not name."""
    if code is None:
        raise RequestError(f"--head: {folder} was judged with a head of this package; leave it out")
    if head is None:
        raise RequestError(
            f"{folder}: was judged with a head of your own; give --head {code.reference} to run its code"
        )
    found = find_head(head).code
    if found is None or found.digest != code.digest:
        raise RequestError(f"--head: {head} is not what {folder} was judged with; give {code.reference} as it was")
    return head


def pipeline_of(old: Manifest, *, where: str) -> Pipeline:
    """The pipeline that a run was asked for; refuse one whose words this version does not know any more."""
    asked = {name: getattr(old.request, name) for name in ("target", "stages", "runtime", "gates")}
    try:
        return parse_pipeline(asked, name=old.request.pipeline, where="its pipeline")
    except RequestError as error:
        raise RequestError(
            f"{where}: was written by another version ({error}); run the pipeline again, or certify with that version"
        ) from error


def _require_same(folder: Path, old: Manifest, loaded: Loaded) -> None:
    if loaded.origin.artifact.digest != old.source.digest:
        raise RequestError(f"{folder}: the checkpoint is not the one of the manifest; give it with --model")
    for name, split in loaded.splits.records.items():
        if name not in old.data or split.digest != old.data[name].digest:
            raise RequestError(f"{folder}: split '{name}' is not the one of the manifest; give the data with --data")
