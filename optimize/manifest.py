"""The manifest: the one record of a run, schema 1, written last.

Other programs parse it (CI, dashboards, the regression gate), so its words are fixed: fields are
added, never renamed. Reports and publications are functions of a manifest and its folder alone.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from optimize.artifact import Artifact, Kind, seal
from optimize.errors import RequestError

Outcome = Literal["passed", "failed", "unverified"]
MODEL, CHECKPOINT = "model", "checkpoint"
"""Folders of a run's and a publication's models: what the target runs, and what PyTorch loads of it."""


class Record(BaseModel):
    """A frozen, closed record."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Metric(Record):
    """A score, beside the PyTorch FP32 reference's on the same examples.

    `drop` is reference minus value; `interval` holds the drop at `confidence` by a paired
    bootstrap; `standard_error` is the bootstrap's; `p_value` is the exact McNemar test's, where
    answers are right or wrong.
    """

    name: str
    value: float
    reference: float
    drop: float
    relative_drop: float | None
    interval: tuple[float, float]
    confidence: float
    standard_error: float
    examples: int
    p_value: float | None = None
    others: dict[str, float] = Field(default_factory=dict)


def _finite(value: float | None) -> float | None:
    return value if value is None or math.isfinite(value) else None


Finite = Annotated[float | None, BeforeValidator(_finite)]
"""A number, or null where a broken model gave none: JSON has no NaN."""


class Drift(Record):
    """How far the outputs moved from the PyTorch FP32 reference's, beyond the task's metric.

    Outputs of `left_out` examples cannot be compared one by one: the model's own tokenizer splits them otherwise.
    """

    agreement: float
    flips: int
    decisions: int
    kl: Finite
    cosine: Finite
    max_abs: Finite
    mean_abs: Finite
    padding_max_abs: Finite
    batch_max_abs: Finite
    compared: int
    left_out: int = 0


class Latency(Record):
    """Milliseconds per call at one shape; a percentile that too few runs can show is null."""

    shape: str
    p50_ms: float
    p90_ms: float | None
    p99_ms: float | None
    runs: int
    speedup: dict[str, float] = Field(default_factory=dict)
    speedup_interval: dict[str, tuple[float, float]] = Field(default_factory=dict)


class Size(Record):
    """Bytes of the model file, split by part of the model and by data type of its tensors.

    `parameters` counts numbers, quantized or not, and with them their scales. `encoder_flops` are the operations of
    all layers for one text of 128 tokens; `export` may leave some of the last layer's out.
    `compressed_bytes` is what gzip makes of it, where a stage zeroed weights for that.
    """

    bytes: int
    ratio: float
    by_component: dict[str, int]
    by_dtype: dict[str, int]
    parameters: int | None = None
    encoder_flops: int | None = None
    compressed_bytes: int | None = None


class Measurement(Record):
    """All that was measured of one model; what was not is in `not_measured`, with the reason.

    `runtime` are the target's settings that it was run with. `device_memory_bytes` is what the process had of the
    memory of a device that has its own, once it had run every shape.
    """

    name: str
    artifact_digest: str
    metric: Metric | None = None
    drift: Drift | None = None
    latency: list[Latency] = Field(default_factory=list)
    size: Size
    load_seconds: float | None = None
    peak_memory_bytes: int | None = None
    device_memory_bytes: int | None = None
    not_measured: dict[str, str] = Field(default_factory=dict)
    runtime: dict[str, Any] = Field(default_factory=dict)

    @property
    def subject(self) -> tuple[str, str]:
        """What two measurements of one model that was run alike share."""
        return self.artifact_digest, json.dumps(self.runtime, sort_keys=True)


class ArtifactRecord(Record):
    """An artifact without its place on this machine."""

    kind: Kind
    digest: str
    size_bytes: int


class StageRecord(Record):
    """One stage of the run: what it was asked, what it did, how long it took."""

    stage: str
    params: dict[str, Any]
    facts: dict[str, int | float | str | list[dict[str, int | float | str]]]
    seconds: float
    cached: bool
    key: str
    artifact: ArtifactRecord


class Check(Record):
    """One gate: its limit, the measured value, and why it came out as it did."""

    name: str
    limit: float
    value: float | None
    outcome: Outcome
    reason: str


class Verdict(Record):
    """`failed` if any check failed, `unverified` if any lacks its measurement, else `passed`."""

    outcome: Outcome
    checks: list[Check]


class Candidate(Record):
    """A pipeline that `auto` tried, and what became of it.

    `tuning` is what the choice was made from: metric and drift on tuning data, latency and size as
    measured then; `checks` are the gates on it. `measurement` names the model in `measurements`.
    """

    pipeline: str
    stages: list[StageRecord] = Field(default_factory=list)
    tuning: Measurement | None = None
    checks: list[Check] = Field(default_factory=list)
    meets_gates: bool = False
    measurement: str | None = None
    chosen: bool = False
    reason: str


class Split(Record):
    """A split that took part: how many examples, and the digest of their content."""

    count: int
    digest: str
    origin: str
    truncated: int = 0


class Request(Record):
    """What was asked for, complete with defaults, so that it can be asked again."""

    target: str
    head: str
    model: str
    revision: str | None
    data: str
    data_config: str | None
    columns: dict[str, str]
    certify_on: str | None
    examples: int
    calibration_examples: int
    tuning_examples: int
    max_tokens: int | None
    shapes: list[str]
    threads: int
    pipeline: str
    stages: list[dict[str, dict[str, Any]]]
    gates: dict[str, Any]
    seed: int
    data_revision: str | None = None
    training_examples: int = 0
    budget: float | None = None
    fastest_within: float | None = None
    vocabulary: str | None = None
    runtime: dict[str, Any] = Field(default_factory=dict)


class Source(Record):
    """The checkpoint: where it came from, and how it was stored before it was raised to FP32."""

    kind: Literal["hub", "folder", "demo"]
    id: str
    revision: str | None
    digest: str
    stored_as: str
    geometry: dict[str, int | str]


class Environment(Record):
    """The machine and the libraries that were measured on; `device` is what the target says of where it ran."""

    cpu: str
    features: list[str]
    cores: int
    memory_bytes: int
    gpu: str | None
    system: str
    versions: dict[str, str]
    device: dict[str, str] = Field(default_factory=dict)


class Manifest(Record):
    """The record of a run."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    id: str
    created: str
    request: Request
    environment: Environment
    source: Source
    data: dict[str, Split]
    stages: list[StageRecord]
    measurements: list[Measurement]
    verdict: Verdict
    candidates: list[Candidate] = Field(default_factory=list)

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


def dump(manifest: Manifest) -> str:
    """The manifest as JSON, two-space indented, in the fixed order of its fields."""
    return json.dumps(manifest.model_dump(mode="json", by_alias=True), indent=2, allow_nan=False) + "\n"


def write(manifest: Manifest, folder: Path) -> None:
    """Write `manifest.json` into `folder` in one step: readers see all of it or none."""
    partial = folder / "manifest.json.partial"
    partial.write_text(dump(manifest), encoding="utf-8")
    os.replace(partial, folder / "manifest.json")


def read(folder: Path) -> Manifest:
    """Read the manifest of a run folder; refuse a folder without one, or one of another schema."""
    path = folder / "manifest.json"
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise RequestError(
            f"{folder}: no readable manifest.json ({error.strerror}); name the folder of a finished run"
        ) from error
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise RequestError(
            f"{path}: not a manifest of schema 1 (at '{where}': {error.errors()[0]['msg']}); "
            "run the pipeline again with this version"
        ) from error


def final_model(folder: Path, manifest: Manifest) -> Artifact:
    """The model of a run folder; refuse one that is not the model that was judged."""
    return _as_recorded(folder / MODEL, manifest.stages[-1].artifact)


def kept_checkpoint(folder: Path, manifest: Manifest) -> Artifact | None:
    """What PyTorch loads of a run's model, where a stage made one; refuse one that is not the run's."""
    made = [record.artifact for record in manifest.stages if record.artifact.kind == "torch"]
    if not made or not (folder / CHECKPOINT).exists():
        return None
    return _as_recorded(folder / CHECKPOINT, made[-1])


def _as_recorded(folder: Path, record: ArtifactRecord) -> Artifact:
    found = seal(folder, record.kind)
    if found.digest != record.digest:
        raise RequestError(
            f"{folder}: is not what the manifest says (digest {found.digest[:12]}, not {record.digest[:12]}); "
            "run it again"
        )
    return found
