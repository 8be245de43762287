"""The records of comparisons, schema 1: runs side by side, and what got worse since the last accepted run.

Other programs parse them (CI, dashboards), so their words are fixed: fields are added, never renamed within a schema.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field, ValidationError

from optimize.errors import RequestError, first_line
from optimize.files.putting import put_file
from optimize.files.small import read_small
from optimize.manifest import Manifest, Outcome, Record

FILE = "regression.json"
MOST_BYTES = 2**20


class Timed(Record):
    """How fast a run's result was at one shape."""

    shape: str = Field(description="Batch x tokens, as in the manifest.")
    p50_ms: float = Field(description="Median, in milliseconds.")
    speedup: dict[str, float] = Field(description="For each FP32 reference of the run, its median over this one.")
    unreliable: str | None = Field(description="Why these times cannot be relied on; null where they can.")


class Side(Record):
    """A run, as a comparison shows it: what it is of, and what was measured of its result."""

    name: str = Field(description="Name of the run's folder, or of the accepted baseline.")
    id: str = Field(description="The manifest's `id`.")
    created: str = Field(description="The manifest's `created`.")
    head: str = Field(description="What the model is for.")
    target: str = Field(description="Where it runs.")
    pipeline: str = Field(description="Pipeline that made it.")
    model: str = Field(description="The checkpoint, as it was asked for.")
    checkpoint: str = Field(description="SHA-256 of the FP32 checkpoint.")
    data: str = Field(description="SHA-256 of the certification split.")
    result: str = Field(description="Name of the judged model among the manifest's measurements.")
    outcome: Outcome = Field(description="The run's own verdict.")
    metric: str | None = Field(description="Name of the metric; null where none was measured.")
    value: float | None = Field(description="What the result scored.")
    reference: float | None = Field(description="What the run's PyTorch FP32 reference scored.")
    agreement: float | None = Field(description="Share of decisions that are the run's own FP32 reference's.")
    size_bytes: int = Field(description="Bytes of the model file.")
    size_ratio: float = Field(description="Its ratio to the FP32 weights.")
    latency: list[Timed] = Field(description="Its times, one entry for each shape.")


class Answers(Record):
    """Two runs' results on the same examples, one by one."""

    examples: int = Field(description="Examples that both were scored on.")
    difference: float = Field(description="The second's score minus the first's, in the metric's unit.")
    interval: tuple[float, float] = Field(
        description="Lower and upper end of the difference at 95 %, by a paired bootstrap."
    )
    first_alone: int | None = Field(
        description="Examples that the first has right and the second has not; null where none is right or wrong."
    )
    second_alone: int | None = Field(description="The other way.")
    test: Literal["mcnemar", "bootstrap"] = Field(
        description="`mcnemar`, exact, where the metric is the share of right answers; else the paired `bootstrap`."
    )
    p_value: float = Field(description="Of that test, that the two score alike; two-sided.")


class Decided(Record):
    """How two runs' results decide, right or wrong."""

    agreement: float = Field(
        description="Share of decisions that are the same. Where their order counts, (1 + Kendall's tau-b) / 2."
    )
    differing: int = Field(description="Decisions that are not the same; pairs of examples where their order counts.")
    decisions: int = Field(description="Decisions that were compared; pairs of examples where their order counts.")


class Speed(Record):
    """How two runs' times compare at one shape."""

    shape: str = Field(description="Batch x tokens, as in the manifest.")
    ratio: float | None = Field(description="The second's median time over the first's, above 1 is slower; or null.")
    over: str | None = Field(
        description="Null where times were compared directly. Else the FP32 reference that each was divided by first: "
        "the one of its own run."
    )
    not_comparable: str | None = Field(description="Why there is no ratio; null where there is one.")


class Pair(Record):
    """Two runs held against each other. What cannot be compared is null, and the reason stands beside it."""

    first: str = Field(description="Name of the first run.")
    second: str = Field(description="Name of the second run.")
    answers: Answers | None = Field(default=None, description="Their scores, example by example.")
    answers_not_comparable: str | None = Field(default=None, description="Why `answers` is null.")
    decisions: Decided | None = Field(default=None, description="Their decisions, one by one.")
    decisions_not_comparable: str | None = Field(default=None, description="Why `decisions` is null.")
    size_ratio: float = Field(description="The second's bytes over the first's.")
    environment: list[str] = Field(
        description="In what their machines and runtimes differ, of what times depend on; empty where they match."
    )
    speed: list[Speed] = Field(description="Their times, at each shape that either was timed at.")


class Comparison(Record):
    """Runs side by side, the first with each of the others."""

    schema_version: Literal[1] = Field(default=1, alias="schema", description="Version of this schema.")
    runs: list[Side] = Field(description="The runs, in the order in which they were named.")
    pairs: list[Pair] = Field(description="The first run with each of the others.")

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Blame(Record):
    """The part of a run that a change comes from most."""

    stage: str = Field(
        description="Name of the stage; or `checkpoint`, where the model was worse before any stage; or the target's "
        "FP32 reference, such as `cpu-fp32`, where that got slower too."
    )
    change: float = Field(description="What came about there, in the unit of the change.")
    settings: dict[str, str] = Field(
        description="Parameters of that stage that are not the baseline's, each as `old → new`."
    )


class Change(Record):
    """One number beside the baseline's."""

    name: str = Field(
        description="`metric`, `agreement`, `macro_f1`, `class_f1` of the class that stands worst, `size`, "
        "`drift.NAME` for a number of the manifest's drift, `latency.SHAPE`; or `comparable`, where the runs cannot be "
        "held against each other."
    )
    baseline: float | None = Field(description="The baseline's; null where it has none.")
    value: float | None = Field(description="The run's; null where it was not measured.")
    loss: float | None = Field(
        description="By how much it is worse, negative where it is better: points of the metric or of agreement, a "
        "share of the baseline's size, drift or time. Null where it cannot be said."
    )
    allowed: float | None = Field(
        description="What it is held to: the largest `loss`, or `alpha` where `p_value` is there."
    )
    p_value: float | None = Field(
        default=None, description="One-sided, that it is no worse, by the paired test; null where there is none."
    )
    adjusted_p: float | None = Field(
        default=None, description="The same after Holm's correction over the tests of answers; judged by `allowed`."
    )
    outcome: Outcome = Field(description="`failed` is a regression; `unverified` is what could not be compared.")
    reason: str = Field(description="The outcome in words, with the numbers.")
    blame: Blame | None = Field(default=None, description="Where it comes from; null where it is no regression.")


class Regression(Record):
    """A run held against the last one that was accepted for the same question."""

    schema_version: Literal[1] = Field(default=1, alias="schema", description="Version of this schema.")
    outcome: Outcome = Field(
        description="`failed` where anything got worse, `unverified` where something could not be compared, else "
        "`passed`."
    )
    run: Side = Field(description="The run that is judged.")
    baseline: Side = Field(description="The accepted run.")
    alpha: float = Field(description="How often, at most, the tests of answers together see a loss that is none.")
    environment: list[str] = Field(
        description="In what machines and runtimes differ, of what times depend on; empty where they match."
    )
    changes: list[Change] = Field(description="Everything that was held against the baseline.")

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


def dump(record: Comparison | Regression) -> str:
    """A record as JSON, two-space indented."""
    return record.model_dump_json(by_alias=True, indent=2) + "\n"


def write_regression(regression: Regression, folder: Path) -> None:
    """Write `regression.json` into a run's folder, in one step."""
    put_file(folder / FILE, dump(regression).encode())


def read_regression(folder: Path, record: Manifest) -> Regression | None:
    """What `regression.json` says of a run as its manifest has it; None where it is missing, or of earlier numbers."""
    path = folder / FILE
    if not path.exists():
        return None
    advice = "remove it, or write it again with `optimize regress`"
    text = read_small(path, most=MOST_BYTES, where=str(path), refusal=RequestError, advice=advice)
    try:
        found = Regression.model_validate_json(text)
    except ValidationError as error:
        raise RequestError(f"{path}: not a record of a regression ({first_line(error)}); {advice}") from error
    # Who certifies a run measures it anew, and what was compared before is not of these measurements.
    return found if (found.run.id, found.run.created) == (record.id, record.created) else None
