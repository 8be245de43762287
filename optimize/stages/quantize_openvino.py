"""INT8 for OpenVINO by NNCF: weights and activations with calibrated ranges, or weights alone.

In full, NNCF migrates scales (SmoothQuant), finds ranges on calibration texts, one unpadded text at a time, and
corrects biases. Its accuracy control is driven by the pipeline's limits, judged on tuning data: they decide whether
operators go back to float, and how far each text's answer is from the reference's decides which. Weights alone need
no data; OpenVINO's CPU plugin then rounds activations while it runs, token by token, where the CPU has VNNI or AMX,
and computes in float elsewhere.

On CPUs without VNNI pairs of products are summed in 16 bits and saturate (NNCF issue 1498). NNCF's own default leaves
linear layers as they are there; `reduce_range: auto` halves the weights' range, which rules it out.

Source: https://github.com/openvinotoolkit/nncf, `nncf.quantize_with_accuracy_control` and `nncf.compress_weights`.
"""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from optimize.artifact import Artifact
from optimize.errors import StageError
from optimize.evaluate.judge import Judge, Loss, beyond_help, describe, make_judge, pad_id_of
from optimize.evaluate.predict import collate
from optimize.graphs.openvino import Weight, count_operators, find_weights, products_of_activations, refuse_unfit
from optimize.interfaces import Context, Facts, Stage, Traits
from optimize.interfaces import Params as StageParams
from optimize.quantization.nncf.accuracy_control import Control
from optimize.quantization.nncf.session import heard
from optimize.quantization.weights import choose_range
from optimize.runtimes.openvino import MODEL_FILE, load_openvino, read_model
from optimize.sentences.configs import SCOPE

if TYPE_CHECKING:
    import openvino

NAME = "quantize_openvino"
RANGES = {"median": "MEDIAN_MINMAX", "mean": "MEAN_MINMAX", "minmax": "MINMAX"}


class Params(StageParams):
    """How to quantize, and what may stay in float."""

    mode: Literal["full", "weights"] = Field(
        default="full",
        description="`full` quantizes weights and activations. `weights` leaves activations in float: no "
        "calibration and next to no loss, but slower than FP32 on CPUs that have neither VNNI nor AMX.",
    )
    preset: Literal["mixed", "performance"] = Field(
        default="mixed",
        description="NNCF's preset: `mixed` lets ranges of activations differ above and below zero, `performance` "
        "keeps them symmetric.",
    )
    ranges: Literal["median", "mean", "minmax"] = Field(
        default="median",
        description="Which of the texts' smallest and largest activations bound the range. The mean is NNCF's own "
        "choice; the median lost less on tuning data (divergence 0.00057 where the mean lost 0.00070 on "
        "SST-2, 0.0080 where it lost 0.0082 on SQuAD).",
    )
    symmetric_weights: bool = Field(
        default=True, description="With `mode: weights`, keep zero in the middle of each weight's range."
    )
    smooth_quant_alpha: float = Field(
        default=0.95,
        ge=-1,
        le=1,
        description="How much of the activations' outliers weights take on (SmoothQuant), from 0 to 1; -1 switches "
        "that off.",
    )
    bias_correction: Literal["fast", "accurate", "none"] = Field(
        default="fast",
        description="Correct biases for the mean error of each layer: from single layers (`fast`), from the whole "
        "model (`accurate`, slower), or not at all.",
    )
    reduce_range: bool | Literal["auto"] = Field(
        default="auto",
        description="Halve the range of weights, so that sums of 16 bits cannot overflow on CPUs without VNNI. "
        "`auto` does so where the CPU has neither VNNI nor AMX.",
    )
    attention: bool = Field(
        default=True,
        description="Quantize the products of queries, keys and values as well. `false` leaves them in float.",
    )
    exclude: tuple[str, ...] = Field(
        default=(),
        description="Shell patterns on the names of layers that stay in float. A pattern that matches none is refused.",
    )
    calibration_samples: int = Field(
        default=300, ge=1, description="Calibration texts, at most, from which ranges of activations are taken."
    )
    accuracy_control: bool = Field(
        default=True,
        description="Put operators back to float, the most harmful first, until the pipeline's limits are met on "
        "tuning data.",
    )
    max_float_share: float = Field(
        default=0.15,
        ge=0,
        le=1,
        description="Share of the weights, at most, that may stay in float. Where that is not enough to meet the "
        "limits, the stage fails.",
    )
    tuning_tokens: int = Field(
        default=65_536, ge=1, description="Tokens of tuning data, at most, on which accuracy control judges."
    )
    ranking_samples: int = Field(
        default=64, ge=1, description="Texts that operators are ranked on: those that lost most by quantization."
    )


def run(source: Artifact, out: Path, params: Params, context: Context) -> Facts:
    """Write the quantized IR; facts say what was chosen, what it costs, and what stayed in float."""
    model = read_model(source.path)
    refuse_unfit(model, source.path, stage=NAME)
    weights = find_weights(model)
    excluded = _excluded(weights, params.exclude)
    reference = context.open("torch", context.reference.path)
    judge = make_judge(context, reference, tokens=params.tuning_tokens)
    control = Control(judge)
    facts: Facts = {"mode": params.mode}
    if params.mode == "weights":
        quantized = _compress(model, excluded, params, context)
    else:
        quantized, chosen = _quantize(model, excluded, params, context, control)
        facts |= chosen
    load_openvino().save_model(quantized, out / MODEL_FILE, compress_to_fp16=False)
    # What was written is judged, and not what NNCF holds: folding and saving are part of the stage.
    loss = judge.assess(context.open("openvino", out))
    counted = _count(out)
    facts |= {**counted, **judge.facts(loss)}
    if not control.trials:
        return facts  # without accuracy control nobody promised to meet the budget
    missed = beyond_help(judge, control.trials[0].loss, stage=NAME, progress=context.progress)
    if not missed:
        _require_limits(judge, loss, counted["float_share"], params)
    return {**facts, **missed, **control.facts(find_weights(read_model(out)))}


def _excluded(weights: Sequence[Weight], patterns: Sequence[str]) -> list[str]:
    """The operators whose layers a pattern names, and a sentence encoder's modules; one that names none is refused."""
    found = [weight.operator for weight in weights if weight.name.startswith(f"{SCOPE}.")]
    for pattern in patterns:
        matching = [weight.operator for weight in weights if fnmatch.fnmatch(weight.name, pattern)]
        if not matching:
            near = difflib.get_close_matches(pattern, [weight.name for weight in weights], n=1, cutoff=0)
            raise StageError(f"{NAME}: no layer is called '{pattern}'; did you mean '{near[0] if near else '*'}'?")
        found += matching
    return found


def _compress(model: openvino.Model, excluded: Sequence[str], params: Params, context: Context) -> openvino.Model:
    """The model with weights in INT8 and activations in float."""
    with heard(context.progress) as nncf:
        mode = nncf.CompressWeightsMode.INT8_SYM if params.symmetric_weights else nncf.CompressWeightsMode.INT8_ASYM
        return nncf.compress_weights(model, mode=mode, ignored_scope=nncf.IgnoredScope(names=list(excluded)))


def _quantize(
    model: openvino.Model, excluded: Sequence[str], params: Params, context: Context, control: Control
) -> tuple[openvino.Model, Facts]:
    """The quantized model, and what was chosen for it."""
    features = context.calibration.features[: params.calibration_samples]
    if not features:
        raise StageError(f"{NAME}: there are no calibration texts; give some with --calibration-examples")
    reduced, because = choose_range(params.reduce_range, context.cpu_features)
    left = list(excluded)
    if not params.attention:
        left += products_of_activations(model)
    pad_id = pad_id_of(context.reference.path)
    with heard(context.progress, control.reverted) as nncf:
        from nncf.quantization.range_estimator import RangeEstimatorParametersSet

        advanced = nncf.AdvancedQuantizationParameters(
            overflow_fix=nncf.OverflowFix.ENABLE if reduced else nncf.OverflowFix.DISABLE,
            activations_range_estimator_params=getattr(RangeEstimatorParametersSet, RANGES[params.ranges]),
            disable_bias_correction=params.bias_correction == "none",
            smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(matmul=params.smooth_quant_alpha),
        )
        settings = {
            "preset": nncf.QuantizationPreset(params.preset),
            "model_type": nncf.ModelType.TRANSFORMER,
            "target_device": nncf.TargetDevice.ANY,
            "subset_size": len(features),
            "fast_bias_correction": params.bias_correction == "fast",
            "ignored_scope": nncf.IgnoredScope(names=left) if left else None,
        }
        # One text at a time: padding would widen the ranges with what no head reads.
        dataset = nncf.Dataset([collate([feature], pad_id=pad_id) for feature in features])
        if params.accuracy_control:
            quantized = control.quantize(nncf, model, dataset, settings, advanced, samples=params.ranking_samples)
        else:
            quantized = nncf.quantize(model, dataset, **settings, advanced_parameters=advanced)
    return quantized, {
        "calibration_samples": len(features),
        "preset": params.preset,
        "ranges": params.ranges,
        "smooth_quant_alpha": params.smooth_quant_alpha,
        "bias_correction": params.bias_correction,
        "reduce_range": reduced,
        "reduce_range_because": because,
    }


def _count(folder: Path) -> dict[str, int | float]:
    """How much of what could be quantized was, by the written graph."""
    model = read_model(folder)
    weights = find_weights(model)
    left = [weight for weight in weights if not weight.quantized]
    total = sum(weight.parameters for weight in weights)
    if len(left) == len(weights):
        raise StageError(f"{NAME}: no weight was quantized; check the graph that the stage before wrote")
    return {
        "quantized_weights": len(weights) - len(left),
        "float_weights": len(left),
        "float_share": sum(weight.parameters for weight in left) / total,
        "quantized_activations": count_operators(model)["FakeQuantize"],
    }


def _require_limits(judge: Judge, loss: Loss, share: float, params: Params) -> None:
    """Refuse what accuracy control could not bring within the limits, or only by leaving too much in float."""
    if judge.allows(loss) and share <= params.max_float_share:
        return
    raise StageError(
        f"{NAME}: with at most {params.max_float_share:.0%} of the weights in float accuracy control did not meet the "
        f"limits; it ended at {describe(loss)} with {share:.0%} in float; raise max_float_share, loosen the gates, or "
        "use 'mode: weights'"
    )


def traits(_: Params) -> Traits:
    """Calibration texts are of any length, and what was made of the model before must still be its own."""
    return Traits(
        makes=frozenset({"quantized"}),
        refuses={
            "quantized": "leave one of them out",
            "of fixed shape": "put 'reshape_openvino' after it",
            "joined to its tokenizer": "put 'attach_tokenizer' last",
        },
    )


STAGE = Stage(
    run=run,
    params=Params,
    takes="openvino",
    gives="openvino",
    needs=("openvino", "nncf"),
    summary="INT8 by NNCF, weights and activations or weights alone; what costs too much accuracy stays in float",
    depends=lambda _: frozenset({"cpu_features", "limits"}),
    traits=traits,
)
