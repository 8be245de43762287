"""The manifest: the one record of a run, schema 2, written last.

Other programs parse it (CI, dashboards, the regression gate), so its words are fixed: fields are
added, never renamed within a schema. What schema 1 recorded is read in the words of schema 2.
Reports and publications are functions of a manifest and its folder alone.
"""

from __future__ import annotations

import errno
import json
import math
import os
import stat
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import from_json

from optimize.artifact import Artifact, Kind, seal
from optimize.errors import RequestError, first_line
from optimize.files.putting import put_file
from optimize.request import Request

Outcome = Literal["passed", "failed", "unverified"]
MODEL, CHECKPOINT = "model", "checkpoint"
"""Folders of a run's and a publication's models: what the target runs, and what PyTorch loads of it."""
FILE = "manifest.json"
RUNS = "latency.npz"
"""The seconds of every timed run, beside the manifest."""
MOST_BYTES = 2**24
"""Of a file that is read as a manifest; those of large runs have some hundred thousand."""
MOST = 2.0**63
"""What every number is below."""


class Record(BaseModel):
    """A frozen, closed record."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Constant(Record):
    """The best answer that is the same whatever the text says, beside the reference's answers."""

    value: float = Field(description="What it would score.")
    lead: float = Field(description="The reference's score minus `value`: what the reference knows of the texts.")
    interval: tuple[float, float] = Field(
        description="Lower and upper end of `lead` at the metric's `confidence`, by a paired bootstrap."
    )
    agreement: float = Field(description="Its agreement with the reference, as in `drift`.")


class MacroF1(Record):
    """The mean F1 of the classes that occur among the right answers, beside the reference's."""

    value: float = Field(description="The model's.")
    reference: float = Field(description="That of the PyTorch FP32 reference.")
    drop: float = Field(description="`reference` minus `value`.")
    interval: tuple[float, float] = Field(
        description="Lower and upper end of the drop at the metric's `confidence`, by a paired bootstrap."
    )
    standard_error: float = Field(description="The bootstrap's standard error of the drop.")


class ClassF1(Record):
    """The F1 of one class, or of entities of one type, beside the reference's."""

    name: str = Field(description="Name of the class, or of the entities' type.")
    support: int = Field(description="Right answers of this class: texts, words or entities.")
    value: float = Field(description="The model's F1.")
    reference: float = Field(description="That of the PyTorch FP32 reference.")
    drop: float = Field(description="`reference` minus `value`.")
    interval: tuple[float, float] = Field(
        description="Lower and upper end of the drop at the metric's `confidence`, by a paired bootstrap."
    )
    standard_error: float = Field(description="The bootstrap's standard error of the drop.")


class Metric(Record):
    """A score, beside the PyTorch FP32 reference's on the same examples."""

    name: str = Field(description="Name of the metric, such as `accuracy`, `f1` or `spearman`.")
    value: float = Field(description="What the model scored.")
    reference: float = Field(description="What the PyTorch FP32 reference scored.")
    drop: float = Field(
        description="`reference` minus `value`, in the metric's unit; negative where the model is better."
    )
    relative_drop: float | None = Field(
        description="The drop as a share of the reference's score; null where that is 0."
    )
    interval: tuple[float, float] = Field(
        description="Lower and upper end of the drop at `confidence`, by a paired bootstrap."
    )
    confidence: float = Field(description="Confidence of `interval`, such as 0.95.", gt=0, lt=1)
    standard_error: float = Field(description="The bootstrap's standard error of the drop.")
    examples: int = Field(description="Examples that were scored.")
    p_value: float | None = Field(
        default=None, description="Of the exact McNemar test, where answers are right or wrong; else null."
    )
    lost: int | None = Field(
        default=None,
        description="Examples that the reference alone has right, where answers are right or wrong; else null.",
    )
    gained: int | None = Field(
        default=None,
        description="Examples that the model alone has right, where answers are right or wrong; else null.",
    )
    answers: int | None = Field(
        default=None,
        description="Answers that the examples were given: several each where words are answers, else one each.",
    )
    constant: Constant | None = Field(
        default=None,
        description="What an answer that is the same for every example would score. Where the reference is not better, "
        "nothing can be proven.",
    )
    others: dict[str, float] = Field(
        default_factory=dict, description="Further scores of the model by name, such as exact match beside F1."
    )
    macro_f1: MacroF1 | None = Field(
        default=None, description="The mean over `classes`; null where answers are no classes."
    )
    classes: list[ClassF1] = Field(
        default_factory=list,
        description="F1 by class, of those that occur among the right answers; none where answers are no classes.",
    )


def _finite(value: float | None) -> float | None:
    return value if value is None or math.isfinite(value) else None


Finite = Annotated[float | None, AfterValidator(_finite)]
"""A number, or null where a broken model gave none: JSON has no NaN."""


class Drift(Record):
    """How far the outputs moved from the PyTorch FP32 reference's, beyond the task's metric."""

    agreement: float = Field(
        description="Share of decisions that are the reference's. Where their order counts, (1 + Kendall's tau-b) / 2."
    )
    flips: int = Field(description="Decisions that are not the reference's, as a number.")
    decisions: int = Field(description="Decisions that were compared; pairs of examples where their order counts.")
    kl: Finite = Field(
        description="Mean Kullback-Leibler divergence of the answers from the reference's, in nats, where outputs "
        "are logits; else null."
    )
    cosine: Finite = Field(
        description="Mean cosine similarity to the reference's outputs, where they are vectors; else null."
    )
    max_abs: Finite = Field(description="Largest absolute difference of an output from the reference's.")
    mean_abs: Finite = Field(description="Mean absolute difference of the outputs from the reference's.")
    padding_max_abs: Finite = Field(
        description="Largest change of an output when its text is padded further; 0 where padding does not matter."
    )
    batch_max_abs: Finite = Field(
        description="Largest change of an output when its text is in a batch with others; 0 where batch mates do "
        "not matter."
    )
    compared: int = Field(description="Features whose outputs were compared one by one.")
    left_out: int = Field(
        default=0,
        description="Examples whose outputs cannot be compared one by one, since the model's own tokenizer splits "
        "them otherwise.",
    )


class Latency(Record):
    """Milliseconds per call at one shape."""

    shape: str = Field(
        description="Batch x tokens, such as `1x128`; `data` for lengths as they occur. `@device` at its end: "
        "inputs and outputs lay in the device's memory."
    )
    p50_ms: float = Field(description="Median, in milliseconds.", gt=0)
    p90_ms: float | None = Field(
        description="90th percentile, in milliseconds; null where there are too few runs to show it."
    )
    p99_ms: float | None = Field(
        description="99th percentile, in milliseconds; null where there are too few runs to show it."
    )
    runs: int = Field(description="Calls that were timed.")
    speedup: dict[str, float] = Field(
        default_factory=dict,
        description="For each reference, its median over this one, from the same rounds. Above 1 is faster.",
    )
    speedup_interval: dict[str, tuple[float, float]] = Field(
        default_factory=dict, description="For each reference, the lower and upper end of the speed-up at 95 %."
    )
    unreliable: str | None = Field(
        default=None,
        description="Why these times cannot be relied on; null where they can. A limit on the speed-up is then "
        "unverified.",
    )


class Size(Record):
    """Bytes of the model file, and what they are made of."""

    bytes: int = Field(description="Bytes of the model's files.")
    ratio: float = Field(description="`bytes` over those of the FP32 weights.")
    by_component: dict[str, int] = Field(
        description="Bytes of tensors by part of the model: embedding, attention, ffn, norm, head, other."
    )
    by_dtype: dict[str, int] = Field(description="Bytes of tensors by data type.")
    parameters: int | None = Field(
        default=None, description="Numbers that tensors hold, quantized or not, and with them their scales."
    )
    encoder_flops: int | None = Field(
        default=None,
        description="Operations of all layers for one text of 128 tokens; `export` may leave some of the last "
        "layer's out.",
    )
    compressed_bytes: int | None = Field(
        default=None, description="What gzip makes of the files, where a stage zeroed weights for that; else null."
    )


class Measurement(Record):
    """All that was measured of one model."""

    name: str = Field(description="`pytorch-fp32`, `<target>-fp32`, or the stage that made the model.")
    artifact_digest: str = Field(description="Digest of the model, as in `stages`.")
    metric: Metric | None = Field(default=None, description="Its score; null where it was not measured.")
    drift: Drift | None = Field(default=None, description="How far its outputs moved; null where it was not measured.")
    latency: list[Latency] = Field(default_factory=list, description="Its times, one entry for each shape.")
    size: Size = Field(description="Its size.")
    load_seconds: float | None = Field(default=None, description="Seconds to open the model.")
    peak_memory_bytes: int | None = Field(default=None, description="Peak memory of the process that ran it, in bytes.")
    device_memory_bytes: int | None = Field(
        default=None,
        description="What that process had of the memory of a device that has its own, once it had run every shape, "
        "in bytes.",
    )
    not_measured: dict[str, str] = Field(default_factory=dict, description="What was not measured, and why.")
    runtime: dict[str, Any] = Field(default_factory=dict, description="The target's settings that it was run with.")

    @property
    def subject(self) -> tuple[str, str]:
        """What two measurements of one model that was run alike share."""
        return self.artifact_digest, json.dumps(self.runtime, sort_keys=True)


class ArtifactRecord(Record):
    """An artifact without its place on this machine."""

    kind: Kind = Field(description="`torch`, `onnx` or `openvino`.")
    digest: str = Field(description="SHA-256 of the folder's content.")
    size_bytes: int = Field(description="Bytes of all files in the folder.")


class StageRecord(Record):
    """One stage of the run: what it was asked, what it did, how long it took."""

    stage: str = Field(description="Name of the stage.")
    params: dict[str, Any] = Field(description="Its parameters, complete with defaults.")
    facts: dict[str, bool | int | float | str | list[dict[str, bool | int | float | str]]] = Field(
        description="What the stage states about its work: single values, and tables as lists of flat rows."
    )
    seconds: float = Field(description="Seconds that it took when it was built, in this run or in one before.")
    cached: bool = Field(description="Whether the result came from the cache.")
    key: str = Field(description="Its key in the cache.")
    artifact: ArtifactRecord = Field(description="What it wrote.")


class Check(Record):
    """One limit: the measured value beside it, and why it came out as it did."""

    name: str = Field(
        description="Name of the limit, as in the pipeline's `gates`; or `enough_examples`, "
        "`enough_examples_of_class` or `better_than_constant`, where the data cannot prove that the limits are met."
    )
    limit: float = Field(description="The limit, or what would be needed.")
    value: float | None = Field(description="What was measured; null where nothing was.")
    outcome: Outcome = Field(
        description="`passed`, `failed`, or `unverified` where the measurement is missing or proves nothing."
    )
    reason: str = Field(description="The outcome in words, with the numbers.")


class Verdict(Record):
    """What the limits say together."""

    outcome: Outcome = Field(
        description="`failed` if any check failed, `unverified` if any lacks its measurement, if there is no limit, or "
        "if the data prove nothing, else `passed`."
    )
    checks: list[Check] = Field(description="Each limit's outcome, and what the data cannot prove.")


class Candidate(Record):
    """A pipeline that `auto` tried, and what became of it."""

    pipeline: str = Field(description="Name of the pipeline.")
    stages: list[StageRecord] = Field(default_factory=list, description="Its stages, as far as they were built.")
    tuning: Measurement | None = Field(
        default=None,
        description="What the choice was made from: metric and drift on tuning data, latency and size as measured "
        "then; null where it was not built.",
    )
    checks: list[Check] = Field(default_factory=list, description="The limits' outcomes on `tuning`.")
    meets_gates: bool = Field(default=False, description="Whether all limits are met on tuning data.")
    measurement: str | None = Field(
        default=None,
        description="Name of its model in `measurements`; null where it was not measured on certification data.",
    )
    chosen: bool = Field(default=False, description="Whether it was taken.")
    reason: str = Field(description="Why it was taken, or was not.")


class Probe(Record):
    """A model that a search tried: so much of the encoder, having learnt so long, with its loss on tuning data."""

    budget: float = Field(description="Share of the encoder's operations that is kept.")
    minutes: float = Field(description="Minutes that it learnt at this budget, in all.")
    metric: float = Field(description="The head's metric on tuning data.")
    relative_drop: float = Field(description="What was lost of the FP32 reference's score, as a share of that.")
    agreement: float = Field(description="Share of decisions that are the reference's.")
    divergence: float = Field(description="Mean divergence of the outputs, as stage `distill` states it.")
    within: bool = Field(description="Whether that keeps to the limits on answers.")
    spent_minutes: float = Field(description="Minutes of building that the search had taken by then.")


class Split(Record):
    """A split that took part."""

    count: int = Field(description="Examples in it.")
    digest: str = Field(description="SHA-256 of their content.")
    origin: str = Field(description="Split of the data set that they came from.")
    truncated: int = Field(default=0, description="Examples that were cut to fit the model's longest text.")
    notes: list[str] = Field(
        default_factory=list,
        description="How that split was cut or sampled, and which rows were left out because they cannot be used.",
    )
    left_out: int = Field(
        default=0, description="Examples that were not scored, since they hold nothing to judge, such as no words."
    )


class SentenceRecord(Record):
    """What a sentence encoder does to a text beside its transformer."""

    modules: str = Field(description="Its modules, such as `cls → Dense 768 to 384, Tanh → Normalize`.")
    prompt: str = Field(description="What is put before every text; empty where nothing is.")
    max_tokens: int | None = Field(description="Tokens that it cuts texts to; null where the model alone says so.")


class SourceCard(Record):
    """What the checkpoint's own model card states in its metadata; what it does not state is empty."""

    license: str | None = Field(default=None, description="Its licence, as the Hub names it, such as `apache-2.0`.")
    license_name: str | None = Field(default=None, description="What a licence is called that the Hub has no name for.")
    license_link: str | None = Field(default=None, description="Where such a licence is to be read.")
    language: list[str] = Field(default_factory=list, description="Languages of its texts, such as `en`.")
    datasets: list[str] = Field(default_factory=list, description="Data sets that it was trained on.")


class Source(Record):
    """The checkpoint, and how it was stored before it was raised to FP32."""

    kind: Literal["hub", "folder", "demo"] = Field(description="`hub`, `folder` or `demo`.")
    id: str = Field(description="Hub id, folder, or `demo`.")
    revision: str | None = Field(description="Commit of a Hub id, else null.")
    digest: str = Field(description="SHA-256 of the FP32 checkpoint.")
    stored_as: str = Field(
        description="Data types of its weights as they were stored, and the library that stored them where it was not "
        "PyTorch: `float32`, or `float32, TensorFlow`."
    )
    base: str | None = Field(
        default=None, description="Hub id or folder of what it was merged into, where it is an adapter; else null."
    )
    base_revision: str | None = Field(
        default=None, description="Commit of the base, where that came from the Hub; else null."
    )
    wrapper: str = Field(
        default="",
        description="What all names of its weights began with and do not any more, such as `module.`; empty where they "
        "were those of transformers.",
    )
    left_out: str = Field(
        default="", description="Names of its weights that its class has no use for, with commas between them."
    )
    geometry: dict[str, int | str] = Field(
        description="Layers, heads, widths and vocabulary, by their names in the checkpoint's config."
    )
    card: SourceCard = Field(
        default_factory=SourceCard, description="What its model card states: licence, languages, data sets."
    )
    sentence: SentenceRecord | None = Field(
        default=None, description="What a sentence encoder has beside its transformer; null for other checkpoints."
    )


class Environment(Record):
    """The machine and the libraries that were measured on."""

    cpu: str = Field(description="Name of the CPU.")
    features: list[str] = Field(description="Features of the CPU that matter here, such as `avx512_vnni`.")
    cores: int = Field(description="Cores that the process may use, after affinity and quota.")
    cpu_quota: float | None = Field(
        default=None,
        description="Cores' worth of time that a container has, such as 1.5; null where nothing limits it.",
    )
    memory_bytes: int = Field(description="Memory of the machine, in bytes.")
    memory_limit_bytes: int | None = Field(
        default=None, description="Memory that a container has, in bytes; null where it has the machine's."
    )
    gpu: str | None = Field(description="Name of the GPU; null where there is none.")
    system: str = Field(description="Operating system and Python.")
    versions: dict[str, str] = Field(description="Versions of the libraries that took part.")
    device: dict[str, str] = Field(default_factory=dict, description="What the target says of where it ran.")


RENAMED = {
    "tuning_budget": "tuning_limits",
    "within_budget": "within_limits",
    "overflow_fix": "reduce_range",
    "overflow_fix_because": "reduce_range_because",
    "wide_sums": "reduce_range",
    "wide_sums_because": "reduce_range_because",
}
"""Parameters and facts that schema 1 called otherwise. `wide_sums` also meant the opposite."""


def _from_schema_1(content: Any, *, in_facts: bool = False) -> Any:
    """The same in the words of schema 2, whose facts say yes and no as booleans."""
    if isinstance(content, list):
        return [_from_schema_1(each, in_facts=in_facts) for each in content]
    if isinstance(content, dict):
        found = {}
        for name, value in content.items():
            said = _from_schema_1(value, in_facts=in_facts or name == "facts")
            if name == "wide_sums" and isinstance(said, bool):
                said = not said
            found[RENAMED.get(name, name)] = said
        return found
    return content == "yes" if in_facts and content in ("yes", "no") else content


def _with_rule(content: dict[str, Any]) -> dict[str, Any]:
    """The same with the rule that its limits were judged by, which those before the rule do not name."""
    request = content.get("request")
    limits = request.get("gates") if isinstance(request, dict) else None
    if not isinstance(request, dict) or not isinstance(limits, dict) or "rule" in limits:
        return content
    rule = "estimate" if limits.get("confidence") is None else "proven"
    return {**content, "request": {**request, "gates": {**limits, "rule": rule}}}


class Manifest(Record):
    """The record of a run."""

    schema_version: Literal[2] = Field(
        default=2,
        alias="schema",
        description="Version of this schema. Fields are added within a version, never renamed.",
    )
    id: str = Field(description="Eight hexadecimal digits at random, in which the name of the run's folder ends.")
    created: str = Field(description="When the run ended, as ISO 8601 in UTC.")
    request: Request = Field(description="What was asked for.")
    environment: Environment = Field(description="Where it was measured.")
    source: Source = Field(description="The checkpoint.")
    data: dict[str, Split] = Field(
        description="The splits, by name: `calibration`, `tuning`, `certification`, and `training` where a stage "
        "trains."
    )
    thresholds: dict[str, float] = Field(
        default_factory=dict,
        description="What the head fixed on tuning data with the FP32 reference, and decided with for every model: "
        "`no_answer`, by how much no answer's score must be above the best span's. Empty where nothing is to be fixed.",
    )
    labels: str = Field(
        default="",
        description="How the labels of the data were read, such as `names` or `1 to 5 as classes 0 to 4`, and by which "
        "scheme tags were scored; empty where there are none, or where that was not recorded.",
    )
    stages: list[StageRecord] = Field(description="The stages, in order.", min_length=1)
    measurements: list[Measurement] = Field(
        description="What was measured, the references first and the judged model last."
    )
    verdict: Verdict = Field(description="The outcome of the limits.")
    candidates: list[Candidate] = Field(
        default_factory=list, description="Where there was something to choose from, what was tried."
    )
    search: list[Probe] = Field(
        default_factory=list, description="What a search tried before its candidates were built, in order."
    )

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _in_the_words_of_today(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        if content.get("schema") == 1:
            content = {**_from_schema_1(content), "schema": 2}
        return _with_rule(content)

    @model_validator(mode="after")
    def _has_its_splits(self) -> Manifest:
        wanted = ["tuning", "certification"] if self.candidates else ["certification"]
        if missing := [name for name in wanted if name not in self.data]:
            raise ValueError(f"data has no split '{missing[0]}'")
        return self


def dump(manifest: Manifest) -> str:
    """The manifest as JSON, two-space indented, in the fixed order of its fields."""
    return json.dumps(manifest.model_dump(mode="json", by_alias=True), indent=2, allow_nan=False) + "\n"


def write(manifest: Manifest, folder: Path) -> None:
    """Write `manifest.json` into `folder` in one step: readers see all of it or none."""
    put_file(folder / FILE, dump(manifest).encode())


def read(folder: Path) -> Manifest:
    """Read the manifest of a run folder; refuse a folder without one, or one of another schema."""
    path = folder / FILE
    try:
        content = from_json(_content(path), allow_inf_nan=False)
        _require_numbers(content)
        return Manifest.model_validate(content)
    except OSError as error:
        raise RequestError(
            f"{folder}: no readable {FILE} ({error.strerror}); name the folder of a finished run"
        ) from error
    except ValueError as error:
        raise RequestError(
            f"{path}: not a manifest of schema 1 or 2 ({_what_is_wrong(error)}); run the pipeline again with this "
            "version"
        ) from error


def _content(path: Path) -> bytes:
    """The bytes of a file; a pipe would never end, and no manifest is as large as what is refused here."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a file")
    if status.st_size > MOST_BYTES:
        raise ValueError(f"it has {status.st_size:,} bytes, and at most {MOST_BYTES:,} are read")
    return path.read_bytes()


def _require_numbers(content: Any) -> None:
    """Refuse numbers that are too large to be computed with; floats without bound are read as infinite."""
    left = [content]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            left += value.values()
        elif isinstance(value, list):
            left += value
        elif isinstance(value, int | float) and not abs(value) < MOST:
            raise ValueError("it has a number that is too large")


def _what_is_wrong(error: ValueError) -> str:
    """The first thing that is wrong with a manifest, and where."""
    if not isinstance(error, ValidationError):
        return first_line(error)
    first = error.errors()[0]
    return f"at '{'.'.join(map(str, first['loc']))}': {first['msg']}"


def final_model(folder: Path, manifest: Manifest) -> Artifact:
    """The model of a run folder; refuse one that is not the model that was judged."""
    return _as_recorded(folder / MODEL, manifest.stages[-1].artifact)


def kept_checkpoint(folder: Path, manifest: Manifest) -> Artifact | None:
    """What PyTorch loads of a run's model, where a stage made one; refuse one that is not the run's."""
    made = [record.artifact for record in manifest.stages if record.artifact.kind == "torch"]
    if not made or not os.path.lexists(folder / CHECKPOINT):
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
