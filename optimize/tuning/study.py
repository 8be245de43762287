"""A search on this machine: Optuna says what to try and what to stop, and trials train one after the other.

The study is a journal in the working folder. What trials are and how they ended stands in their own records, which go
before it: a kill may leave the journal behind them. Each trial is drawn with a seed of its own number, so that a search
that was killed draws what it would have drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimize.tuned import Outcome, Point, Trial
from optimize.tuning.course import Course
from optimize.tuning.space import suggest, usual
from optimize.tuning.trial import Tell, attempt
from optimize.tuning.work import STUDY, Work

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import TPESampler
    from optuna.storages import JournalStorage

NAME = "tune"
NUMBER = "number"
"""What a trial of the journal says of the one whose record it goes on with, where it is not that one itself."""
AT_RANDOM = 5
"""Trials before the sampler goes by what was measured."""


def search_here(course: Course) -> None:
    """Train trials until enough have ended, or time is up."""
    study = open_study(course)
    left = unfinished_trials(study)
    while course.wanted and course.left > 0:
        asked = next(left, None)
        if asked is None:
            study.sampler = sampler_of(course.work, len(study.trials))
            asked = study.ask()
        carry_out(course, study, asked)


def carry_out(course: Course, study: Study, asked: Any) -> None:
    """Train one trial of the study's, and tell it how that ended."""
    number, parameters = number_of(asked), suggest(asked, course.work.space)
    known = set(study.trials[asked.number].intermediate_values)

    def measured(point: Point) -> bool:
        course.measured(number, point)
        rung = len([each for each in course.trials[number].curve if each.step <= point.step])
        if rung in known:  # told before a kill, and passed
            return False
        asked.report(point.value, rung)
        return bool(asked.should_prune())

    tell = Tell(measured, lambda done, total: course.progress.step(f"trial {number}", done, total))
    course.begin(number, parameters)
    outcome, reason = attempt(course.work, number, parameters, tell, seconds=course.left)
    if outcome == "stopped":
        reason = "behind others at this measurement"
    course.end(number, outcome, reason)
    tell_study(study, asked.number, course.trials[number])


def open_study(course: Course) -> Study:
    """The study of a working folder, with all that ended told; a new one begins with the usual recipe."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = course.work.space
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=space.grace, reduction_factor=space.reduction)
    study = optuna.create_study(
        study_name=NAME,
        storage=storage_of(course.work),
        direction="maximize",
        sampler=sampler_of(course.work, 0),
        pruner=pruner,
        load_if_exists=True,
    )
    if not study.trials and usual(space):
        study.enqueue_trial(usual(space))
    for each in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
        record = course.trials.get(number_of(each))
        if record is not None and record.outcome != "running":
            tell_study(study, each.number, record)
    return study


def storage_of(work: Work) -> JournalStorage:
    """The journal of a working folder, which no other process has: what a killed one left half done is mended."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    path = work.folder / STUDY
    path.with_name(f"{STUDY}.lock").unlink(missing_ok=True)
    keep_whole_lines(path)
    return JournalStorage(JournalFileBackend(str(path)))


def keep_whole_lines(path: Path) -> None:
    """Cut off a last line that does not end: the next one would be written behind it."""
    if path.exists():
        content = path.read_bytes()
        if content and not content.endswith(b"\n"):
            path.write_bytes(content[: content.rfind(b"\n") + 1])


def sampler_of(work: Work, number: int) -> TPESampler:
    """What draws the trial of this number."""
    from optuna.samplers import TPESampler

    return TPESampler(seed=work.seed + number, n_startup_trials=AT_RANDOM)


def unfinished_trials(study: Study) -> Iterator[Any]:
    """The study's trials that a kill left, to be carried on with as they are."""
    from optuna.trial import Trial as Asked
    from optuna.trial import TrialState

    for each in study.get_trials(states=(TrialState.RUNNING,)):
        yield Asked(study, each._trial_id)  # Optuna has no public way back to a trial that was asked for


def number_of(asked: Any) -> int:
    """The number of a trial of the study's in our records."""
    return int(asked.user_attrs.get(NUMBER, asked.number))


def tell_study(study: Study, number: int, record: Trial) -> None:
    """Tell the study how a trial ended; one that did not come to its end has the value of its last measurement."""
    from optuna.trial import TrialState

    states: dict[Outcome, Any] = {
        "finished": TrialState.COMPLETE,
        "stopped": TrialState.PRUNED,
        "out of time": TrialState.PRUNED,
        "failed": TrialState.FAIL,
    }
    value = record.best.value if record.outcome == "finished" and record.best else None
    study.tell(number, value, state=states[record.outcome])
