"""How a search goes: its trials as they are recorded, what is told of them, and which weights are kept."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field

from optimize.files.events import Events
from optimize.interfaces import Progress
from optimize.tuned import Outcome, Point, Trial, choose, read_trial, write_trial
from optimize.tuning.space import Parameters
from optimize.tuning.trial import BEST, TRAINER
from optimize.tuning.work import EVENTS, TRIALS, Work


@dataclass
class Course:
    """The trials of a search by their numbers. One process leads a search and writes them, wherever they train."""

    work: Work
    metric: str
    progress: Progress
    trials: dict[int, Trial] = field(default_factory=dict)

    @property
    def events(self) -> Events:
        """Where events are written."""
        return Events(self.work.folder / EVENTS)

    @property
    def ended(self) -> list[Trial]:
        """Those that are at their end, in order."""
        return [self.trials[number] for number in sorted(self.trials) if self.trials[number].outcome != "running"]

    @property
    def unfinished(self) -> list[Trial]:
        """Those that a kill left, in order."""
        return [self.trials[number] for number in sorted(self.trials) if self.trials[number].outcome == "running"]

    @property
    def wanted(self) -> int:
        """How many more trials are to end."""
        return max(0, self.work.space.trials - len(self.ended))

    @property
    def seconds(self) -> float:
        """What all trials took together."""
        return sum(each.seconds for each in self.trials.values())

    @property
    def left(self) -> float:
        """Seconds that are left for trials which run one after the other."""
        return 60.0 * self.work.space.minutes - self.seconds

    @property
    def best(self) -> Trial | None:
        """The trial that would be chosen now."""
        return choose(self.ended)

    def begin(self, number: int, parameters: Parameters) -> None:
        """Note that a trial trains, or trains on."""
        known = self.trials.get(number)
        self._put(known or Trial(number=number, parameters=parameters, outcome="running"))
        self.events.write("resumed" if known else "begun", trial=number, parameters=parameters)
        said = ", ".join(f"{name} {value:.3g}" for name, value in parameters.items())
        self.progress.say(f"trial {number}: {'goes on: ' if known else ''}{said}")

    def measured(self, number: int, point: Point) -> None:
        """Note a measurement; one that is told again takes the place of the first."""
        trial = self.trials[number]
        curve = {each.step: each for each in trial.curve}
        again = point.step in curve
        curve[point.step] = point
        self._put(trial.model_copy(update={"curve": [curve[step] for step in sorted(curve)]}))
        self.events.write("measured", trial=number, **point.model_dump(), again=again)
        if not again:
            self.progress.say(f"trial {number}: {self.metric} {point.value:.4f} after {point.step} steps")

    def end(self, number: int, outcome: Outcome, reason: str = "") -> None:
        """Note how a trial ended, and remove what is not needed of it; the best trial's weights stay."""
        trial = self.trials[number].model_copy(update={"outcome": outcome, "reason": reason})
        self._put(trial)
        self.tidy()
        best = trial.best
        self.events.write("ended", trial=number, outcome=outcome, reason=reason, value=best.value if best else None)
        self.progress.say(f"trial {number}: {said(trial, self.metric)}")
        self.progress.step("trials", len(self.ended), max(self.work.space.trials, len(self.ended)))

    def tidy(self) -> None:
        """Remove the weights of trials that have ended, but for the best ones, and what they trained on with."""
        best = self.best
        for trial in self.ended:
            place = self.work.trial(trial.number)
            shutil.rmtree(place / TRAINER, ignore_errors=True)
            if trial is not best:
                for path in [*place.glob(f"{BEST}*"), *place.glob(f".{BEST}*")]:
                    shutil.rmtree(path)

    def _put(self, trial: Trial) -> None:
        self.trials[trial.number] = trial
        place = self.work.trial(trial.number)
        place.mkdir(parents=True, exist_ok=True)
        write_trial(trial, place)


def said(trial: Trial, metric: str) -> str:
    """How a trial ended, in words."""
    best = trial.best
    scored = f"{metric} {best.value:.4f} at its best, after {best.step} steps" if best else "not measured"
    return f"{trial.outcome}; {scored}" + (f" ({trial.reason})" if trial.reason else "")


def take_up(work: Work, metric: str, progress: Progress) -> Course:
    """The search as it was left, or one that has no trials yet."""
    course = Course(work, metric, progress)
    for trial in recorded(work):
        course.trials[trial.number] = trial
    course.tidy()
    return course


def recorded(work: Work) -> Iterator[Trial]:
    """The trials that are recorded in a folder."""
    for place in (work.folder / TRIALS).glob("*"):
        if (trial := read_trial(place)) is not None:
            yield trial
