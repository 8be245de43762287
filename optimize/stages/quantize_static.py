"""INT8 weights and activations with ranges found on calibration data, right on every CPU.

What a text comes out as does not depend on padding or on batch mates, since nothing is quantized by
what happens to be in a batch. Accuracy is kept by five means, each in a file of optimize/quantization:

- only what linear layers read is quantized, the residual stream never (`write`);
- ranges come from streamed histograms, without padding (`calibrate`, `ranges`);
- scales migrate from activations to weights where that is exact and pays (`smooth`);
- weights are held back just enough that no 16-bit sum overflows, where the CPU has such (`weights`);
- groups of operators that cost too much accuracy stay in float (`sensitivity`, `fallback`).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, ValidationInfo, field_validator

from optimize.artifact import Artifact
from optimize.errors import StageError
from optimize.evaluate.judge import beyond_help, make_judge
from optimize.evaluate.parity import check_parity
from optimize.graphs.onnx import refuse_quantized, save, to_proto
from optimize.interfaces import Context, Encoded, FactRow, Facts, Stage, Traits
from optimize.interfaces import Params as StageParams
from optimize.quantization import sensitivity, smooth
from optimize.quantization.calibrate import calibrate
from optimize.quantization.fallback import Outcome, fall_back
from optimize.quantization.ranges import Method
from optimize.quantization.sites import Group, choose_groups, find_sites, group_sites, normalise
from optimize.quantization.tables import TableBits
from optimize.quantization.variants import Variants, opener
from optimize.quantization.weights import choose_range
from optimize.quantization.write import Form, Scheme

if TYPE_CHECKING:
    import onnx_ir as ir

NAME = "quantize_static"
FUSED = ("Attention", "EmbedLayerNormalization", "QAttention")


class Params(StageParams):
    """How to quantize, and what may stay in float."""

    method: Method = Field(
        default="mse",
        description="How the range of each activation is chosen from its histogram: the extremes, their moving "
        "average, a percentile, the least loss of entropy, or the least squared error (`mse`).",
    )
    percentile: float = Field(
        default=99.99,
        gt=50,
        le=100,
        description="Share of values, in percent, that `method: percentile` keeps inside the range.",
    )
    activation_type: Literal["uint8", "int8"] = Field(
        default="uint8",
        description="Type of quantized activations. ONNX Runtime multiplies `uint8` with INT8 weights much faster "
        "on CPUs; TensorRT takes `int8` alone.",
    )
    symmetric: bool = Field(
        default=False,
        description="Make ranges of activations as wide below zero as above, as TensorRT demands. It wastes levels "
        "where most values have one sign, as behind GELU.",
    )
    per_channel: bool = Field(
        default=True,
        description="One scale for each output channel, in place of one for each matrix. It is more accurate.",
    )
    reduce_range: bool | Literal["auto"] = Field(
        default="auto",
        description="Keep the sums of 8-bit products within 16 bits, by smaller weights where a pair of them could "
        "overflow. `auto` does so where the CPU has neither VNNI nor AMX.",
    )
    table_bits: TableBits = Field(
        default=8,
        description="Bits of each value in embedding tables. 4 takes half of the room, runs in ONNX Runtime on CPUs "
        "alone, and leaves a table that answers are read from in 8.",
    )
    format: Form = Field(
        default="qoperator",
        description="`qoperator` writes integer operators, the fastest on CPUs. `qdq` writes pairs of "
        "QuantizeLinear and DequantizeLinear, as TensorRT reads them.",
    )

    @field_validator("format")
    @classmethod
    def _is_read_by_what_runs_it(cls, form: Form, info: ValidationInfo) -> Form:
        if form == "qdq" and info.data.get("table_bits") == 4:
            raise ValueError("is for TensorRT, which looks nothing up in 4 bits; leave 'table_bits' at 8")
        return form

    include: tuple[str, ...] = Field(
        default=("*",),
        description="Shell patterns on the names of layers, as the checkpoint gives them. A layer that matches none "
        "stays in float.",
    )
    exclude: tuple[str, ...] = Field(
        default=(), description="Shell patterns on the names of layers that stay in float."
    )
    smooth: bool = Field(
        default=True,
        description="Migrate scales from activations to weights (SmoothQuant), where that is exact and pays. Switch "
        "it off behind `train_quantized`, whose weights know their grid.",
    )
    min_gain_db: float = Field(
        default=3.0,
        ge=0,
        description="Gain in a layer's signal-to-noise ratio, in dB, that pays for a multiplication of its own "
        "where scales cannot be folded into the layer before.",
    )
    sensitivity: bool = Field(
        default=True,
        description="Measure what each group of operators costs alone, for the report. Takes a run of the model for "
        "each group.",
    )
    fallback: bool = Field(
        default=True,
        description="Leave groups of operators in float where the pipeline's limits are not met on tuning data, the "
        "most error per microsecond first.",
    )
    max_float_share: float = Field(
        default=0.15,
        ge=0,
        le=1,
        description="Share of the weights, at most, that `fallback` may leave in float. Where that is not enough, "
        "the stage fails.",
    )
    tuning_tokens: int = Field(
        default=65_536, ge=1, description="Tokens of tuning data, at most, on which the limits are judged."
    )
    sensitivity_tokens: int = Field(
        default=16_384,
        ge=1,
        description="Tokens of tuning data, at most, on which the groups are measured one by one and scales are "
        "searched.",
    )
    tolerance: float = Field(
        default=1e-4,
        gt=0,
        description="Largest difference that migrating scales may make to the FP32 graph, relative to the largest "
        "output. A larger one fails the stage.",
    )


def run(source: Artifact, out: Path, params: Params, context: Context) -> Facts:
    """Write the quantized `model.onnx`; facts say what was chosen, what it costs, and what stayed in float."""
    import onnx_ir

    model = normalise(onnx_ir.load(source.path / "model.onnx"))
    refuse_quantized(model, stage=NAME)
    _refuse_fused(model)
    open_model = opener(context)
    judge = make_judge(context, context.open("torch", context.reference.path), tokens=params.tuning_tokens)
    scheme, facts = _scheme(params, context)
    groups = choose_groups(group_sites(find_sites(model)), params.include, params.exclude, stage=NAME)
    if params.smooth:
        facts |= _smooth(model, groups, scheme, params, context)
        save(model, out / "model.onnx")
        where = f"{NAME}: scale migration"
        facts["migration_max_difference"] = check_parity(out, source, context, stage=where, tolerance=params.tolerance)
        names = {group.name for group in groups}
        groups = [group for group in group_sites(find_sites(model)) if group.name in names]
    ranges = calibrate(
        to_proto(model),
        reads(groups),
        context.calibration.features,
        method=params.method,
        percentile=params.percentile,
        symmetric=params.symmetric,
        threads=context.threads,
        progress=context.progress,
        where=NAME,
    )
    variants = Variants(model, tuple(groups), ranges, scheme, params.format, judge, open_model)
    outcome, table = _decide(variants, params, context)
    left = [step.group for step in outcome.steps]
    save(variants.without(left), out / "model.onnx")
    return {
        **facts,
        **_count(model, groups, left),
        **variants.judge.facts(outcome.loss),
        "variants_tried": outcome.tried,
        **table,
    }


def reads(groups: list[Group]) -> list[str]:
    """The tensors that need a range: what products read."""
    return list(dict.fromkeys(site.reads for group in groups for site in group.sites if not site.looks_up))


def _refuse_fused(model: ir.Model) -> None:
    found = sorted({node.op_type for node in model.graph} & set(FUSED))
    if found:
        raise StageError(
            f"{NAME}: {', '.join(found)} hide linear layers; leave out 'fuse', ONNX Runtime fuses what is left itself"
        )


def _scheme(params: Params, context: Context) -> tuple[Scheme, Facts]:
    reduced, because = choose_range(params.reduce_range, context.cpu_features)
    scheme = Scheme(
        params.activation_type,
        params.symmetric,
        params.per_channel,
        reduce_range=reduced,
        table_bits=params.table_bits,
    )
    return scheme, {
        "format": params.format,
        "method": params.method,
        "activations": params.activation_type + (" symmetric" if params.symmetric else ""),
        "per_channel": params.per_channel,
        "table_bits": params.table_bits,
        "reduce_range": reduced,
        "reduce_range_because": because,
    }


def _smooth(model: ir.Model, groups: list[Group], scheme: Scheme, params: Params, context: Context) -> Facts:
    """Migrate scales in place."""
    names = reads([group for group in groups if not any(site.tied for site in group.sites)])
    tuning = _tuning(context).first(tokens=params.sensitivity_tokens)
    samples = smooth.sample_rows(
        model, names, tuning.features, threads=context.threads, seed=context.seed, progress=context.progress
    )
    found = smooth.search(model, groups, samples, scheme, min_gain_db=params.min_gain_db)
    smooth.migrate(model, found)
    rows: list[FactRow] = []
    multiplied = 0
    for each in found:
        # Where nothing before the layer can take a scale, a multiplication of its own does.
        multiplied += each.values is None
        how = "multiplied" if each.values is None else f"folded into {each.values.name}"
        rows.append({"group": each.group.name, "alpha": each.alpha, "gain_db": each.gain_db, "how": how})
    return {"scales_folded": len(found) - multiplied, "scales_multiplied": multiplied, "migrations": rows}


def _tuning(context: Context) -> Encoded:
    return context.tuning if context.tuning.features else context.calibration


def _decide(variants: Variants, params: Params, context: Context) -> tuple[Outcome, Facts]:
    """Which groups stay in float; the whole table of groups, where it was asked for or needed."""
    judge, loss = variants.judge, variants.assess(variants.without([]))
    given, missed = variants.open(variants.model), Facts()
    enough = not params.fallback or judge.allows(loss)
    if not enough:
        missed = beyond_help(judge, judge.assess(given), stage=NAME, progress=context.progress)
        enough = bool(missed)
    if enough and not params.sensitivity:
        return Outcome((), loss, 1), missed
    # Against what the stage was given: what stages before it lost would hide what a single group costs.
    few = make_judge(context, given, tokens=params.sensitivity_tokens)
    costs = sensitivity.measure(replace(variants, judge=few), threads=context.threads, progress=context.progress)
    outcome = Outcome((), loss, 1)
    if not enough:
        outcome = fall_back(variants, costs, max_float_share=params.max_float_share, progress=context.progress)
    reverted: list[FactRow] = []
    for step in outcome.steps:
        row: FactRow = {"group": step.group.name, "why": "the limits were not met without it"}
        reverted.append(row | {"divergence_removed": step.divergence_removed, "lost_us": step.lost_us})
    left = {step.group.name for step in outcome.steps}
    table: Facts = {**missed, "sensitivity": sensitivity.as_rows(costs, left)}
    if reverted:
        table["reverted"] = reverted
    return outcome, table


def _count(model: ir.Model, groups: list[Group], left: list[Group]) -> Facts:
    """How much of what could be quantized was."""
    everything = group_sites(find_sites(model))
    names = {group.name for group in left}
    quantized = [group for group in groups if group.name not in names]
    total = sum(group.parameters for group in everything)
    return {
        "quantized_groups": len(quantized),
        "float_groups": len(everything) - len(quantized),
        "float_share": 1.0 - sum(group.parameters for group in quantized) / total,
    }


def traits(_: Params) -> Traits:
    """Fused operators hide the linear layers that are to be quantized; ONNX Runtime fuses what is left by itself."""
    return Traits(
        makes=frozenset({"quantized"}),
        refuses={
            "fused": "leave out 'fuse', since ONNX Runtime fuses what is left by itself",
            "quantized": "leave one of them out",
            "in FP16": "put 'quantize_static' before it",
        },
    )


STAGE = Stage(
    run=run,
    params=Params,
    takes="onnx",
    gives="onnx",
    needs=("onnxruntime", "onnx", "onnx-ir"),
    summary="INT8 weights and activations with calibrated ranges; what costs too much accuracy stays in float",
    depends=lambda _: frozenset({"cpu_features", "limits"}),
    traits=traits,
)
