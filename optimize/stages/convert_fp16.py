"""FP16 weights and activations, save for what does not fit: half the size, and several times the speed on GPUs.

FP16 ends at 65504, and is coarse long before. So, as NVIDIA's AutoCast does (TensorRT Model Optimizer), a node stays
in FP32 if a tensor that it reads or writes gets larger than `max_magnitude` on calibration data, or a weight of it
than FP16 can hold. Fused attention hides two tensors that grow most, its queries, keys and values and their products:
they are computed beside it to be looked at. Inputs and outputs keep their types.

onnxruntime.transformers' converter does the conversion. It inserts casts by the types that the graph states, which
onnx does not know of ONNX Runtime's operators; here the runtime itself is asked for them.
"""

from __future__ import annotations

import difflib
import fnmatch
import logging
import warnings
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from optimize.artifact import Artifact
from optimize.errors import StageError
from optimize.evaluate.judge import make_judge
from optimize.evaluate.parity import check_parity
from optimize.graphs.half import expose_attention, join_casts, name_nodes
from optimize.graphs.onnx import QUANTIZED_OPERATORS, save, to_proto
from optimize.interfaces import Context, Facts, Feature, Stage, Traits
from optimize.interfaces import Params as StageParams
from optimize.quantization.calibrate import calibrate
from optimize.quantization.ranges import Range
from optimize.runtimes.half import FLOAT, holds_half
from optimize.runtimes.onnx_runtime import MODEL_FILE, tensor_types

if TYPE_CHECKING:
    import onnx_ir as ir

NAME = "convert_fp16"
LARGEST = 65504.0
"""The largest finite FP16 number."""


class Params(StageParams):
    """What stays in FP32, and how the rest is proven."""

    max_magnitude: float = Field(
        default=512.0,
        gt=0,
        le=LARGEST,
        description="Largest magnitude that activations may reach on calibration data. A node that reads or writes "
        "a larger one stays in FP32. FP16 ends at 65504 and is coarse long before; 512 is also the "
        "default of NVIDIA's AutoCast.",
    )
    include: tuple[str, ...] = Field(
        default=("*",), description="Shell patterns on the names of nodes. A node that matches none stays in FP32."
    )
    exclude: tuple[str, ...] = Field(
        default=(), description="Shell patterns on the names of nodes. A node that matches one stays in FP32."
    )
    tolerance: float = Field(
        default=0.02,
        gt=0,
        description="Largest difference from the FP32 graph that is accepted, relative to the largest output. A "
        "larger one fails the stage.",
    )
    calibration_tokens: int = Field(
        default=65_536, ge=1, description="Tokens of calibration data, at most, on which magnitudes are taken."
    )
    tuning_tokens: int = Field(
        default=65_536, ge=1, description="Tokens of tuning data, at most, on which the reported loss is measured."
    )


@dataclass(frozen=True)
class Kept:
    """A node that stays in FP32, why, and the largest magnitude that it meets."""

    node: str
    why: str
    peak: float


def run(source: Artifact, out: Path, params: Params, context: Context) -> Facts:
    """Write `model.onnx` in FP16; facts say how many nodes stayed in FP32 and what the rest costs."""
    import onnx_ir

    model = onnx_ir.load(source.path / MODEL_FILE)
    if holds_half(model):
        raise StageError(f"{NAME}: the model is in FP16 already; leave the stage out")
    name_nodes(model)
    types = tensor_types(to_proto(model))
    seen = context.calibration.first(tokens=params.calibration_tokens).features
    peaks = find_peaks(model, [name for name, kind in types.items() if kind == FLOAT], seen, context)
    kept = choose(model, peaks, params)
    in_fp32, floating = {each.node for each in kept}, _floating(model, types)
    if floating <= in_fp32:
        raise StageError(f"{NAME}: every node would stay in FP32; raise 'max_magnitude' or widen 'include'")
    save(_convert(model, types, in_fp32), out / MODEL_FILE)
    difference = check_parity(out, source, context, stage=NAME, tolerance=params.tolerance)
    judge = make_judge(context, context.open("torch", context.reference.path), tokens=params.tuning_tokens)
    loss = judge.assess(context.open("onnx", out))
    large = sorted((each for each in kept if each.node in floating and each.peak > 0), key=lambda each: -each.peak)
    facts: Facts = {
        "fp16_nodes": len(floating - in_fp32),
        "fp32_nodes": len(floating & in_fp32),
        "largest_activation": max(peaks.values(), default=0.0),
        "calibration_texts": len(seen),
        "max_difference": difference,
        **judge.facts(loss),
    }
    if large:
        facts["kept_fp32"] = [{"node": each.node, "why": each.why, "peak": each.peak} for each in large]
    return facts


def _floating(model: ir.Model, types: Mapping[str, int]) -> set[str]:
    """The nodes that give FP32, constants aside."""
    found = set()
    for node in model.graph:
        if node.op_type != "Constant" and any(types.get(value.name) == FLOAT for value in node.outputs):
            found.add(node.name)
    return found


def find_peaks(
    model: ir.Model, tensors: Sequence[str], features: Sequence[Feature], context: Context
) -> dict[str, float]:
    """The largest magnitude of each tensor on calibration data; what attention hides counts as its output's."""
    hidden = expose_attention(model)
    ranges = calibrate(
        to_proto(hidden.model),
        [*tensors, *hidden.owners],
        features,
        method="minmax",
        threads=context.threads,
        progress=context.progress,
        where=NAME,
    )
    peaks = {name: _peak(ranges[name]) for name in tensors}
    for name, owner in hidden.owners.items():
        peaks[owner] = max(peaks[owner], _peak(ranges[name]))
    return peaks


def _peak(found: Range) -> float:
    return max(abs(found.low), abs(found.high))


def choose(model: ir.Model, peaks: Mapping[str, float], params: Params) -> list[Kept]:
    """The nodes that stay in FP32, in the order of the graph."""
    weights = _largest_weights(model.graph)
    names = [node.name for node in model.graph]
    wanted = set(_matching(names, params.include)) - set(_matching(names, params.exclude))
    kept = []
    for node in model.graph:
        activation, weight = (_most(found, [*node.inputs, *node.outputs]) for found in (peaks, weights))
        if node.op_type in QUANTIZED_OPERATORS:
            kept.append(Kept(node.name, "quantized", 0.0))
        elif node.name not in wanted:
            kept.append(Kept(node.name, "left out by 'include' or 'exclude'", 0.0))
        elif activation > params.max_magnitude:
            kept.append(Kept(node.name, f"an activation beyond {params.max_magnitude:g}", activation))
        elif weight > LARGEST:
            kept.append(Kept(node.name, f"a weight beyond {LARGEST:g}", weight))
    return kept


def _largest_weights(graph: ir.Graph) -> dict[str, float]:
    """The largest magnitude in each FP32 weight."""
    import numpy as np

    found = {}
    for name, weight in graph.initializers.items():
        if weight.dtype == FLOAT:
            found[name] = float(np.abs(weight.const_value.numpy()).max(initial=0.0))
    return found


def _most(found: Mapping[str, float], values: Iterable[ir.Value | None]) -> float:
    """The largest of what is known of some values; an input that is left out is None."""
    return max((found.get(value.name, 0.0) for value in values if value is not None), default=0.0)


def _matching(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """The names that any pattern matches; a pattern that matches none is refused."""
    found = []
    for pattern in patterns:
        matching = fnmatch.filter(names, pattern)
        if not matching:
            near = difflib.get_close_matches(pattern, names, n=1, cutoff=0.0)
            raise StageError(
                f"{NAME}: pattern '{pattern}' matches no node; names look like '{near[0] if near else '*'}'"
            )
        found += matching
    return found


def _convert(model: ir.Model, types: Mapping[str, int], kept: Set[str]) -> ir.Model:
    from onnx import helper
    from onnxruntime.transformers.float16 import convert_float_to_float16

    proto = to_proto(model)
    stated = {value.name for value in proto.graph.output}
    del proto.graph.value_info[:]
    for name, kind in types.items():
        if kind == FLOAT and name not in stated:
            proto.graph.value_info.append(helper.make_tensor_value_info(name, kind, None))
    logging.getLogger("onnxruntime.transformers").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # Weights below the least FP16 number become that number.
        warnings.simplefilter("ignore")
        converted = convert_float_to_float16(
            proto, keep_io_types=True, disable_shape_infer=True, node_block_list=sorted(kept)
        )
    return join_casts(converted)


STAGE = Stage(
    run=run,
    params=Params,
    takes="onnx",
    gives="onnx",
    needs=("onnxruntime", "onnx", "onnx-ir"),
    summary="FP16, save for nodes whose activations get too large on calibration data",
    traits=lambda _: Traits(makes=frozenset({"in FP16"}), refuses={"in FP16": "leave one of them out"}),
)
