"""The record of a search over fine-tunings, beside the checkpoint that it chose: how to read and write it.

Within a schema's version, fields are added and never renamed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import ConfigDict, Field, ValidationError

from optimize.errors import RequestError, first_line
from optimize.files.putting import put_file
from optimize.files.small import read_small
from optimize.manifest import Environment, Record, Split

FILE, TRIAL = "tuning.json", "trial.json"
MOST_BYTES = 2**24
R = TypeVar("R", bound=Record)
Outcome = Literal["running", "finished", "stopped", "out of time", "failed"]
CHOSEN_FROM: tuple[Outcome, ...] = ("finished", "out of time")
"""Outcomes of trials that one is chosen from."""


class Point(Record):
    """A measurement of a trial on tuning data."""

    step: int = Field(description="Steps that were trained by then.")
    epoch: float = Field(description="How often the training examples were shown by then.")
    value: float = Field(description="The head's metric on tuning data.")
    others: dict[str, float] = Field(default_factory=dict, description="Further scores by name.")
    loss: float | None = Field(
        description="Mean loss on training data since the measurement before; null where it was no number."
    )
    seconds: float = Field(description="Seconds that the trial took by then, its measurements among them.")


class Trial(Record):
    """One training, with the parameters that the search gave it."""

    number: int = Field(description="Its number, from 0.")
    parameters: dict[str, float | int] = Field(description="What was searched over, by name.")
    outcome: Outcome = Field(
        description="`finished`: trained to its end. `stopped`: behind others at a measurement. `out of time`: the "
        "search's time was up. `failed`: it could not go on. `running`: not at its end yet."
    )
    reason: str = Field(default="", description="Why it was stopped or failed; empty for the others.")
    curve: list[Point] = Field(default_factory=list, description="What was measured, in order.")

    @property
    def best(self) -> Point | None:
        """The best measurement, of which the weights are kept; of equals the first."""
        return max(self.curve, key=lambda point: point.value, default=None)

    @property
    def seconds(self) -> float:
        """How long it took, as far as it was measured."""
        return self.curve[-1].seconds if self.curve else 0.0


class Asked(Record):
    """What was asked for, complete with defaults."""

    model: str = Field(description="Checkpoint that trials begin from.")
    revision: str | None = Field(description="Commit of a model on the Hub; null for a folder and the demo.")
    head: str = Field(description="What the model is for.")
    data: str = Field(description="Data to train on.")
    data_config: str | None = Field(description="Configuration of the data set, if one was named.")
    data_revision: str | None = Field(description="Commit of a data set on the Hub; null for any other.")
    columns: dict[str, str] = Field(description="Columns by the role they play, as far as they were named.")
    certify_on: str | None = Field(description="Split that is left to judge by, if it was named.")
    examples: int = Field(description="Most examples that are left to judge by.")
    calibration_examples: int = Field(description="Most examples that are left to calibrate on.")
    tuning_examples: int = Field(description="Most examples that trials are measured and chosen on.")
    training_examples: int = Field(description="Most examples that trials learn from.")
    max_tokens: int = Field(description="Tokens that texts were cut to.")
    seed: int = Field(description="Seed of everything random.")
    threads: int = Field(description="Threads, and on Ray cores, of a trial.")
    on: str = Field(description="Where trials ran: `here`, or on Ray.")


class Base(Record):
    """The checkpoint that trials begin from."""

    kind: Literal["hub", "folder", "demo"] = Field(description="Where it came from.")
    id: str = Field(description="Its Hub id, or the folder's name.")
    digest: str = Field(description="SHA-256 of what trials begin from, in FP32.")
    head: Literal["new", "its own"] = Field(
        description="Whether the head's first weights were drawn at random, or are the checkpoint's."
    )


class Tuned(Record):
    """The record of a search, `tuning.json`."""

    schema_version: Literal[1] = Field(default=1, alias="schema", description="Version of this schema.")
    created: str = Field(description="When it was written, as ISO 8601 in UTC.")
    asked: Asked = Field(description="What was asked for.")
    environment: Environment = Field(description="The machine that led the search.")
    versions: dict[str, str] = Field(description="Versions of the libraries that searched and trained.")
    base: Base = Field(description="The checkpoint that trials begin from.")
    data: dict[str, Split] = Field(
        description="The splits, by name. Trials learnt from `training` and were chosen on `tuning`; nothing read "
        "`calibration` and `certification`, whose digests are those of a later run."
    )
    labels: str = Field(description="How the labels of the data were read; empty where there are none.")
    classes: list[str] = Field(description="Names of the classes, by their ids; empty where the head has none.")
    space: dict[str, Any] = Field(description="What was searched, and how.")
    metric: str = Field(description="Name of the metric that trials were measured by.")
    trials: list[Trial] = Field(description="All trials, in order.", min_length=1)
    chosen: int = Field(description="Number of the trial whose weights these are.")
    seconds: float = Field(description="Seconds that all trials took together.")

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    @property
    def winner(self) -> Trial:
        """The trial whose weights these are."""
        return next(each for each in self.trials if each.number == self.chosen)

    @property
    def value(self) -> float:
        """What it scored on tuning data, which it was chosen by."""
        best = self.winner.best
        return best.value if best else 0.0


def choose(trials: list[Trial]) -> Trial | None:
    """The trial with the best measurement of those that may be chosen, of equals the first; None where none may."""
    found = [each for each in trials if each.outcome in CHOSEN_FROM and each.best]
    return max(found, key=lambda each: (each.best.value if each.best else 0.0, -each.number), default=None)


def dump(record: Tuned | Trial) -> str:
    """A record as JSON, two-space indented."""
    return record.model_dump_json(by_alias=True, indent=2) + "\n"


def write(record: Tuned, folder: Path) -> None:
    """Write `tuning.json` into a folder, in one step."""
    put_file(folder / FILE, dump(record).encode())


def write_trial(record: Trial, folder: Path) -> None:
    """Write `trial.json` into a trial's folder, in one step."""
    put_file(folder / TRIAL, dump(record).encode())


def read(folder: Path) -> Tuned | None:
    """What `tuning.json` says in a folder; None where there is none. Raises RequestError where it cannot be read."""
    return _read(folder / FILE, Tuned)


def read_trial(folder: Path) -> Trial | None:
    """The same of a trial's folder."""
    return _read(folder / TRIAL, Trial)


def _read(path: Path, kind: type[R]) -> R | None:
    if not os.path.lexists(path):
        return None
    advice = "remove the folder, and tune again"
    text = read_small(path, most=MOST_BYTES, where=str(path), refusal=RequestError, advice=advice)
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise RequestError(f"{path}: not the record of a search ({first_line(error)}); {advice}") from error
