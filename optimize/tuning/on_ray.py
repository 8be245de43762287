"""The same search on Ray: its Optuna search draws what is tried, its ASHA scheduler stops what is far behind.

Trials train in processes of their own, several at a time where there is room, each with `threads` cores, and a GPU
where the cluster has any. They read and write the working folder, which therefore lies on a disk that all machines
share. This process leads: it alone writes the study and the records.
"""

from __future__ import annotations

import functools
import math
import os
import shutil
from typing import TYPE_CHECKING, Any

from optimize.errors import UnavailableError
from optimize.machine.clusters import joined
from optimize.tuned import Point
from optimize.tuning.course import Course
from optimize.tuning.space import Tuning, suggest
from optimize.tuning.study import NAME, NUMBER, number_of, open_study, sampler_of, storage_of
from optimize.tuning.trial import Tell, attempt
from optimize.tuning.work import RAY, Work

if TYPE_CHECKING:
    from optuna import Study

VALUE, POINT, LAST, FAILED = "value", "point", "last", "failed"
"""What a trial reports: what it is measured by, all of the measurement, whether it is the last, or why it failed."""
SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
}
"""Ray prints nothing, writes no logs of its own and leaves Ctrl-C to us, where the environment says nothing else."""


def search_on_ray(course: Course, address: str) -> None:
    """Train trials on Ray until enough have ended, or time is up.

    Raises UnavailableError where there is no such cluster, or none of its machines has the cores that a trial takes.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    known = settle(course)
    if not course.wanted:
        return
    with joined(address) as machines:
        resources = resources_of(course.work, [each["Resources"] for each in machines])
        said = ", ".join(f"{count:g} {name}" for name, count in resources.items())
        course.progress.say(f"ray: {said} for each trial")
        course.events.write("ray", address=address, resources=resources)
        _fit(course, resources, known)
    for trial in course.unfinished:
        course.end(trial.number, "out of time")
    open_study(course)
    shutil.rmtree(course.work.folder / RAY, ignore_errors=True)


def settle(course: Course) -> int:
    """Have what a kill left be asked for again, for the same record; how many trials the study knows."""
    from optuna.trial import TrialState

    study: Study = open_study(course)
    for each in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(each.number, state=TrialState.FAIL)
        if each.params and number_of(each) in course.trials:
            study.enqueue_trial(each.params, user_attrs={NUMBER: number_of(each)})
    return len(study.trials)


def resources_of(work: Work, machines: list[dict[str, float]]) -> dict[str, float]:
    """What a trial takes of one of the machines."""
    most = max((each.get("CPU", 0.0) for each in machines), default=0.0)
    if most < work.threads:
        raise UnavailableError(
            f"--on: a trial takes {work.threads} cores, and no machine of the cluster has more than {most:g}; give "
            "fewer --threads"
        )
    gpus = any(each.get("GPU", 0.0) >= 1 for each in machines)
    return {"cpu": float(work.threads), **({"gpu": 1.0} if gpus else {})}


def _fit(course: Course, resources: dict[str, float], known: int) -> None:
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    work, space = course.work, course.work.space
    search = OptunaSearch(
        space=functools.partial(drawn, space),
        metric=VALUE,
        mode="max",
        study_name=NAME,
        storage=storage_of(work),
        sampler=sampler_of(work, known),
    )
    scheduler = ASHAScheduler(
        metric=VALUE,
        mode="max",
        max_t=max(space.grace, space.measurements - 1),
        grace_period=space.grace,
        reduction_factor=space.reduction,
        stop_last_trials=False,
    )
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(trained, work=work), resources),
        tune_config=tune.TuneConfig(
            search_alg=search,
            scheduler=scheduler,
            num_samples=course.wanted,
            time_budget_s=60.0 * space.minutes,
        ),
        run_config=tune.RunConfig(
            name=NAME, storage_path=str(work.folder / RAY), callbacks=[_callback(course)], verbose=0
        ),
    )
    tuner.fit()


def drawn(space: Tuning, trial: Any) -> dict[str, Any]:
    """What Ray gives a trial: its parameters, and the number of its record."""
    return {**suggest(trial, space), NUMBER: number_of(trial)}


def trained(config: dict[str, Any], work: Work) -> None:
    """What runs in a process of Ray's: one trial, which reports each measurement, and ends there where ASHA says so."""
    from ray import tune

    parameters = {name: value for name, value in config.items() if name != NUMBER}
    steps = {"total": 0}

    def step(done: int, total: int) -> None:
        steps["total"] = total

    def measured(point: Point) -> bool:
        tune.report({VALUE: point.value, POINT: point.model_dump(), LAST: point.step >= steps["total"] > 0})
        return False

    outcome, reason = attempt(work, int(config[NUMBER]), parameters, Tell(measured, step))
    if outcome == "failed":
        tune.report({VALUE: math.nan, FAILED: reason})


def _callback(course: Course) -> Any:
    """Ray's callback that tells the course what happens."""
    from ray import tune

    def begin(_: object, *, trial: Any, **__: object) -> None:
        parameters = {name: value for name, value in trial.config.items() if name != NUMBER}
        course.begin(int(trial.config[NUMBER]), parameters)

    def measured(_: object, *, trial: Any, result: dict[str, Any], **__: object) -> None:
        number = int(trial.config[NUMBER])
        if course.trials[number].outcome != "running":
            return
        if FAILED in result:
            course.end(number, "failed", result[FAILED])
        else:
            course.measured(number, Point.model_validate(result[POINT]))
            if result[LAST]:
                course.end(number, "finished")

    def complete(_: object, *, trial: Any, **__: object) -> None:
        number = int(trial.config[NUMBER])
        if course.trials[number].outcome == "running":
            course.end(number, "stopped", "behind others at this measurement")

    def died(_: object, *, trial: Any, **__: object) -> None:
        course.end(int(trial.config[NUMBER]), "failed", "its process died, or the machine that it ran on is gone")

    members = {
        "on_trial_start": begin,
        "on_trial_result": measured,
        "on_trial_complete": complete,
        "on_trial_error": died,
        # Ray writes its callbacks beside the experiment, where nothing reads them.
        "__reduce__": lambda _: (tune.Callback, ()),
    }
    return type("Watching", (tune.Callback,), members)()
