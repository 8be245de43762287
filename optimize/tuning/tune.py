"""Carry out a search: load, train trials, choose the best on tuning data, and write its checkpoint whole or not at all.

    <out>/<name>.tuning/    the working folder, while there is something to go on with
    <out>/<name>/           the checkpoint, as transformers saves one, with tuning.json, tuning.md and its picture

The name ends in a digest of what shapes the trials: who asks for the same again goes on where it was, or is given what
is there. How many trials there are and how long they may take is not in it, so that a search can be gone on with.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optimize import tuned
from optimize.artifact import folder_digest, model_files
from optimize.checkpoint import CONFIG_FILE, read_config
from optimize.errors import RequestError, StageError
from optimize.files.assembling import assembled
from optimize.files.leftovers import lock
from optimize.interfaces import Progress
from optimize.machine import environment
from optimize.report.tuning import write_page
from optimize.source.tokenizer import tokenizer_files
from optimize.tuned import Asked, Base, Trial, Tuned
from optimize.tuning.course import Course, said, take_up
from optimize.tuning.on_ray import search_on_ray
from optimize.tuning.plan import TuningPlan
from optimize.tuning.study import search_here
from optimize.tuning.trial import best_weights
from optimize.tuning.work import EVENTS, Loaded, Work, classes_of, load, make_base

WORKING = ".tuning"
LIBRARIES = ("transformers", "torch", "accelerate", "optuna", "ray")
SHAPING = ("transformers", "torch", "optuna")
"""Libraries whose versions shape trials, or which are drawn."""


def tune(plan: TuningPlan, *, progress: Progress) -> tuple[Path, Tuned]:
    """Carry out a plan; the folder of the checkpoint, and its record.

    Raises StageError where no trial came to an end that can be chosen.
    """
    loaded = load(plan, progress)
    name = name_of(loaded)
    done, folder = plan.out / name, (plan.out / f"{name}{WORKING}").absolute()
    known = tuned.read(done)
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder):
        work = work_of(loaded, folder)
        course = take_up(work, metric_of(loaded), progress)
        if known is not None and (not course.wanted or (plan.ray is None and course.left <= 0)):
            progress.say("nothing to redo: all trials are there")
            clear(course)
            return done, known
        make_base(loaded, folder)
        course.events.write("search", name=name, trials=work.space.trials, minutes=work.space.minutes, on=plan.on)
        progress.say(f"events: {folder / EVENTS}")
        if plan.ray is None:
            search_here(course)
        else:
            search_on_ray(course, plan.ray)
        record = record_of(loaded, course)
        write_result(record, course, done)
        course.events.write("written", folder=str(done), trial=record.chosen, value=record.value)
        clear(course)
    return done, record


def name_of(loaded: Loaded) -> str:
    """What the result is called: by checkpoint and head, and a digest of all that shapes its trials."""
    plan, records = loaded.plan, loaded.splits.records
    material: Mapping[str, Any] = {
        "head": plan.head.key,
        "begins_from": loaded.origin.artifact.digest,
        "new_head": loaded.new_head,
        "data": {split: records[split].digest for split in ("training", "tuning")},
        "classes": classes_of(loaded),
        "max_tokens": loaded.text.max_tokens,
        "space": plan.tuning.what_trials_are,
        "seed": plan.options.seed,
        "versions": {library: environment.version(library) for library in SHAPING},
    }
    digest = hashlib.sha256(json.dumps(material, sort_keys=True).encode()).hexdigest()
    return f"{Path(plan.found.id).name}-{plan.head.name}-{digest[:8]}"


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a working folder, which one process at a time may lead a search in."""
    with (folder / "leader").open("a") as stream:
        try:
            lock(stream.fileno())
        except BlockingIOError as error:
            raise RequestError(f"{folder}: another process leads this search; wait for it, or end it") from error
        yield


def work_of(loaded: Loaded, folder: Path) -> Work:
    """What the plan's trials need."""
    plan = loaded.plan
    return Work(
        folder=folder,
        head=plan.head.name,
        training=loaded.training,
        tuning=loaded.tuning,
        space=plan.tuning,
        seed=plan.options.seed,
        threads=plan.threads,
    )


def metric_of(loaded: Loaded) -> str:
    """The name of what trials are measured by: the head's metric, where the data do not make it another one."""
    head, tuning = loaded.plan.head, loaded.tuning
    return next((head.score(tuning, answers).metric for answers in head.constants(tuning)), head.metric)


def record_of(loaded: Loaded, course: Course) -> Tuned:
    """The record of a search that ended; refuses one of which nothing can be chosen."""
    best = course.best
    if best is None:
        raise StageError(f"tune: no trial can be chosen: {why_none(course)}")
    plan = loaded.plan
    return Tuned(
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        asked=asked_of(loaded),
        environment=environment.detect(),
        versions={library: environment.version(library) for library in LIBRARIES},
        base=Base(
            kind=plan.found.kind,
            id=plan.found.id,
            digest=folder_digest(course.work.base),
            head="new" if loaded.new_head else "its own",
        ),
        data=loaded.splits.records,
        labels=loaded.splits.labels,
        classes=classes_of(loaded),
        space=plan.tuning.model_dump(mode="json"),
        metric=course.metric,
        trials=course.ended,
        chosen=best.number,
        seconds=round(course.seconds, 3),
    )


def why_none(course: Course) -> str:
    """How the trials ended, each way once."""
    ways = dict.fromkeys(trial.reason or said(trial, course.metric) for trial in course.ended)
    return " | ".join(ways) or f"{course.work.space.minutes:g} minutes were up before any was measured; give more"


def asked_of(loaded: Loaded) -> Asked:
    """What was asked for, complete with defaults."""
    plan, options, wanted = loaded.plan, loaded.plan.options, loaded.plan.wanted
    return Asked(
        model=options.model,
        revision=plan.found.revision,
        head=plan.head.name,
        data=wanted.name,
        data_config=wanted.config,
        data_revision=wanted.revision,
        columns=dict(wanted.columns),
        certify_on=wanted.certify_on,
        examples=wanted.examples,
        calibration_examples=wanted.calibration_examples,
        tuning_examples=wanted.tuning_examples,
        training_examples=wanted.training_examples,
        max_tokens=loaded.text.max_tokens,
        seed=wanted.seed,
        threads=plan.threads,
        on=plan.on,
    )


def write_result(record: Tuned, course: Course, done: Path) -> None:
    """Write the folder of the chosen trial's checkpoint; one that is there of fewer trials is replaced."""
    work = course.work
    weights = chosen_weights(record.winner, work, done)
    with assembled(done.parent, done.name) as partial:
        for path in tokenizer_files(work.base):
            shutil.copyfile(path, partial / path.name)
        for path in model_files(weights, "torch"):
            shutil.copyfile(path, partial / path.name)
        config = read_config(work.base)
        dropout = record.winner.parameters["dropout"]
        config |= {"dropout": dropout, "attention_dropout": dropout}
        (partial / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        shutil.copyfile(work.folder / EVENTS, partial / EVENTS)
        write_page(record, partial)
        tuned.write(record, partial)
        if os.path.lexists(done):
            done.rename(partial.with_name("before"))  # goes with what is left of the assembling
        partial.rename(done)


def chosen_weights(trial: Trial, work: Work, done: Path) -> Path:
    """Where the weights of the chosen trial lie: in its folder, or in an earlier result that had chosen it too."""
    place = best_weights(work.trial(trial.number), trial.best) if trial.best else done
    return place if place.exists() else done


def clear(course: Course) -> None:
    """Remove what the result has; the trials' records stay, to be gone on with."""
    shutil.rmtree(course.work.base, ignore_errors=True)
    for trial in course.ended:
        for path in course.work.trial(trial.number).iterdir():
            if path.is_dir():
                shutil.rmtree(path)
