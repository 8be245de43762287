"""One point of a sweep as a run: that which was certified, or another, certified now."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from optimize import swept
from optimize.errors import RequestError
from optimize.interfaces import Progress
from optimize.planning import make_plan
from optimize.running import run
from optimize.sweep import front
from optimize.sweep.ledger import ASKED, open_ledger
from optimize.sweep.matrix import Point, entries_of, pipelines_of, point_of, read_matrix
from optimize.sweep.sweeping import write_swept
from optimize.swept import RUNS, Trial


def pick(
    folder: Path, wanted: front.Wanted, *, cache: Path | str | None = None, progress: Progress
) -> tuple[Trial, Path]:
    """The best point of a sweep that is as wanted, with the folder of its run, which is made where there is none.

    Raises RequestError where no point is as wanted, or its model or data are not what they were.
    """
    record = swept.read(folder)
    trial = front.pick(record, wanted)
    if trial.run is not None:
        return trial, folder / RUNS / trial.run
    point = point_again(folder, trial)
    placed = replace(point.options, out=folder / RUNS, cache=cache)
    progress.say(f"{trial.label}: not certified yet; it is now")
    place, manifest = run(make_plan(placed, point.form, progress=progress), progress=progress)
    found = trial.model_copy(update={"run": place.name, "verdict": manifest.verdict.outcome})
    open_ledger(folder).note(found)
    trials = [found if each.id == found.id else each for each in record.trials]
    write_swept(record.model_copy(update={"trials": trials}), folder)
    return found, place


def point_again(folder: Path, trial: Trial) -> Point:
    """The point that a record's trial was of; refuses one whose pipeline, model or data have changed since."""
    where = str(folder / ASKED)
    matrix = read_matrix(folder / ASKED)
    entry = next((each for each in entries_of(matrix, where) if each.name == trial.model), None)
    pipeline = dict(pipelines_of(matrix, where)).get(trial.pipeline)
    if entry is not None and pipeline is not None:
        point = point_of(matrix, entry, (trial.pipeline, pipeline), trial.settings)
        if point.id == trial.id:
            return point
    raise RequestError(
        f"{where}: {trial.label} is not what it was: its model, data, pipeline or this version have changed; "
        "sweep again with --resume"
    )
