"""The record of a sweep: every point with what became of it, and how to read and write it.

Other programs parse `sweep.json`, so its words are fixed: fields are added, never renamed within a schema.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationError

from optimize.errors import RequestError, first_line
from optimize.files.putting import put_file
from optimize.files.small import read_small
from optimize.manifest import Check, Environment, Measurement, Outcome, Record, StageRecord

FILE, PAGE, RUNS = "sweep.json", "sweep.html", "runs"
MOST_BYTES = 2**28
"""Of a file that is read as a sweep; one of a thousand points has some 5 MB."""
Preference = Literal["latency", "size", "accuracy"]
"""What is to be as good as possible among points that meet all limits."""


class Trial(Record):
    """A point of a sweep, and what became of it."""

    id: str = Field(description="Digest of all that was asked for of this point.")
    model: str = Field(description="Name of the entry of `models` that it is of.")
    head: str = Field(description="What the model is for.")
    target: str = Field(description="Where the model runs.")
    pipeline: str = Field(description="The pipeline, by name or path.")
    settings: dict[str, Any] = Field(description="What was set of it, by the parameter's full name.")
    label: str = Field(description="The pipeline, and what distinguishes the point from others of it.")
    outcome: Literal["measured", "failed", "left out"] = Field(
        description="`failed` where it could not be built or measured, `left out` where time or trials were over."
    )
    reason: str = Field(default="", description="Why it failed or was left out; of one that misses limits, which.")
    stages: list[StageRecord] = Field(default_factory=list, description="The stages that were carried out.")
    tuning: Measurement | None = Field(
        default=None, description="The model measured: metric and drift on tuning data, latency and size."
    )
    shape: str = Field(default="", description="Where its speed was compared: at its limits' `speedup_shape`.")
    speedup: float | None = Field(default=None, description="How many times as fast as PyTorch FP32 it is there.")
    checks: list[Check] = Field(default_factory=list, description="Each limit beside what was measured.")
    meets_gates: bool = Field(default=False, description="Whether all limits are met on tuning data.")
    environment: str = Field(default="", description="Key in `environments` of the machine that it was measured on.")
    on_front: bool = Field(
        default=False,
        description="Whether no other point of the same model, target and machine loses less, is faster and smaller.",
    )
    run: str | None = Field(default=None, description="Folder of the certified run, below the sweep's; else null.")
    verdict: Outcome | None = Field(default=None, description="That run's verdict, on certification data.")

    @property
    def group(self) -> tuple[str, str, str]:
        """What points share that can be held against each other: model, target and machine."""
        return self.model, self.target, self.environment

    @property
    def relative_drop(self) -> float | None:
        """What it loses of the metric on tuning data, as a share."""
        return self.tuning.metric.relative_drop if self.tuning and self.tuning.metric else None

    @property
    def is_doubtful(self) -> bool:
        """Whether its speed was measured on a machine that others kept busy, or is too uncertain to go by."""
        times = self.tuning.latency if self.tuning else []
        return any(each.shape == self.shape and each.unreliable for each in times)

    @property
    def size_ratio(self) -> float | None:
        """Its file's size over that of FP32."""
        return self.tuning.size.ratio if self.tuning else None


class Swept(Record):
    """A sweep: what was asked for, and all its points."""

    schema_version: Literal[1] = Field(default=1, alias="schema", description="Version of this schema.")
    name: str = Field(description="Name of the file that asked for it.")
    created: str = Field(description="When it was begun, in UTC.")
    finished: bool = Field(description="Whether nothing is left to do: false where it was interrupted.")
    request: dict[str, Any] = Field(description="What the file says.")
    prefer: Preference = Field(description="By what one point of each model and target was chosen.")
    environments: dict[str, Environment] = Field(description="Machines that points were measured on, by key.")
    trials: list[Trial] = Field(description="All points, in the order in which they were asked for.")

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


def dump(swept: Swept) -> str:
    """The record as JSON, two-space indented."""
    return swept.model_dump_json(by_alias=True, indent=2) + "\n"


def write(swept: Swept, folder: Path) -> None:
    """Write `sweep.json`, in one step."""
    put_file(folder / FILE, dump(swept).encode())


def read(folder: Path) -> Swept:
    """The record in a sweep's folder; raises RequestError where there is none."""
    path = folder / FILE
    advice = "name the folder of a sweep, or go on with it: `optimize sweep FILE --resume`"
    text = read_small(path, most=MOST_BYTES, where=str(path), refusal=RequestError, advice=advice)
    try:
        return Swept.model_validate_json(text)
    except ValidationError as error:
        raise RequestError(f"{path}: not a record of a sweep ({first_line(error)}); {advice}") from error
