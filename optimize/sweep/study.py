"""Optuna's search through what a matrix spans, in place of all of it: which points come next, by how others did."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

from optimize.config import Pipeline
from optimize.errors import UnavailableError
from optimize.machine.environment import version
from optimize.sweep.front import costs_of
from optimize.sweep.matrix import Entry, Matrix, Point, Range, entries_of, pipelines_of, point_of, spans_of
from optimize.swept import Trial

if TYPE_CHECKING:
    import optuna

PIPELINE = "pipeline"
TRIES = 50
"""Asked so often for points that are not known yet: of a space that is nearly used up, most are."""
OBJECTIVES = 3
"""Drop, time and size, all to be small."""


def askers_of(matrix: Matrix, where: str, *, seed: int = 0) -> list[Asker]:
    """One for each model and target. Raises UnavailableError where Optuna is not installed."""
    if version("optuna") == "absent":
        raise UnavailableError(f"{where}: search: optuna is not installed; install distilbert-optimize[tune]")
    pipelines = pipelines_of(matrix, where)
    targets = dict.fromkeys(pipeline.target for _, pipeline in pipelines)
    found = []
    for entry in entries_of(matrix, where):
        for target in targets:
            own = {words: pipeline for words, pipeline in pipelines if pipeline.target == target}
            found.append(Asker(matrix, entry, own, spans_of(matrix, where), seed=seed))
    return found


class Asker:
    """A study of one model on one target."""

    def __init__(
        self,
        matrix: Matrix,
        entry: Entry,
        pipelines: Mapping[str, Pipeline],
        spans: Mapping[str, list[object] | Range],
        *,
        seed: int,
    ) -> None:
        import optuna

        if matrix.search is None:
            raise ValueError("the matrix asks for no search")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._matrix, self._entry, self._pipelines, self._spans = matrix, entry, pipelines, spans
        self._asked = matrix.search
        self._told: dict[str, Trial] = {}
        self._waiting: dict[str, optuna.Trial] = {}
        sampler: optuna.samplers.BaseSampler = optuna.samplers.TPESampler(seed=seed)
        if self._asked.sampler == "nsga2":
            sampler = optuna.samplers.NSGAIISampler(seed=seed, population_size=max(2 * self._asked.batch, 4))
        self._study = optuna.create_study(directions=["minimize"] * OBJECTIVES, sampler=sampler)

    def ask(self) -> list[Point]:
        """The next points, none that was asked for before; empty once enough were tried, or the space is used up."""
        found: list[Point] = []
        most = min(self._asked.batch, self._asked.trials - len(self._told))
        for _ in range(TRIES):
            if len(found) >= most:
                break
            trial = self._study.ask()
            point = self._point(trial)
            if point.id in self._told:
                self._tell(trial, self._told[point.id])
            elif point.id in self._waiting:
                self._study.tell(trial, state=_states().FAIL)
            else:
                self._waiting[point.id] = trial
                found.append(point)
        return found

    def tell(self, trials: Iterable[Trial]) -> None:
        """What became of points; those of others are none of this study's business."""
        for trial in trials:
            if trial.id in self._waiting:
                self._told[trial.id] = trial
                self._tell(self._waiting.pop(trial.id), trial)

    def remember(self, known: Iterable[Trial]) -> list[Point]:
        """Begin with what an earlier call of the same sweep measured; those of its points that are of this study."""
        found = []
        for trial in known:
            pipeline = self._pipelines.get(trial.pipeline)
            if trial.outcome == "measured" and trial.model == self._entry.name and pipeline is not None:
                point = point_of(self._matrix, self._entry, (trial.pipeline, pipeline), trial.settings)
                if point.id == trial.id:
                    self._told[trial.id] = trial
                    found.append(point)
        return found

    def _point(self, trial: optuna.Trial) -> Point:
        names: Sequence[str] = list(self._pipelines)
        words = str(trial.suggest_categorical(PIPELINE, names))
        pipeline, settings = self._pipelines[words], dict[str, object]()
        for name, span in self._spans.items():
            if not pipeline.takes(name.partition(".")[0]):
                continue
            if isinstance(span, Range):
                settings[name] = round(trial.suggest_float(name, span.low, span.high), 4)
            else:
                # Optuna takes plain values alone; lists are chosen by their place.
                settings[name] = span[int(trial.suggest_categorical(name, list(range(len(span)))))]
        return point_of(self._matrix, self._entry, (words, pipeline), settings)

    def _tell(self, trial: optuna.Trial, known: Trial) -> None:
        costs = costs_of(known)
        if known.outcome == "measured" and all(map(isfinite, costs)):
            self._study.tell(trial, costs)
        else:
            self._study.tell(trial, state=_states().FAIL)


def _states() -> Any:
    import optuna

    return optuna.trial.TrialState
