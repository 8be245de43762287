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
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from optimize.artifact import Artifact
from optimize.errors import StageError
from optimize.half_precision import FLOAT, FLOAT16, holds_half
from optimize.interfaces import Context, Facts, Feature, Stage
from optimize.interfaces import Params as StageParams
from optimize.onnx_runtime import MODEL_FILE, tensor_types
from optimize.quantization.calibrate import calibrate
from optimize.quantization.judge import limit_tokens, make_judge
from optimize.quantization.ranges import Range
from optimize.stages._graph import QUANTIZED_OPERATORS
from optimize.stages._parity import check_parity

NAME = "convert_fp16"
LARGEST = 65504.0
"""The largest finite FP16 number."""


class Params(StageParams):
    """What stays in FP32.

    `max_magnitude` is what activations may reach; AutoCast's default is 512 too. `include` and `exclude` are shell
    patterns on the names of nodes: what is not included, or is excluded, stays in FP32 as well. `tolerance` bounds the
    difference from the FP32 graph, relative to the largest output; `calibration_tokens` and `tuning_tokens` bound the
    data looked at.
    """

    max_magnitude: float = Field(default=512.0, gt=0, le=LARGEST)
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    tolerance: float = Field(default=0.02, gt=0)
    calibration_tokens: int = Field(default=65_536, ge=1)
    tuning_tokens: int = Field(default=65_536, ge=1)


@dataclass(frozen=True)
class Kept:
    """A node that stays in FP32, why, and the largest magnitude that it meets."""

    node: str
    why: str
    peak: float


def run(source: Artifact, out: Path, params: Params, context: Context) -> Facts:
    """Write `model.onnx` in FP16; facts say how many nodes stayed in FP32 and what the rest costs."""
    import onnx

    model = onnx.load(source.path / MODEL_FILE)
    if holds_half(model):
        raise StageError(f"{NAME}: the model is in FP16 already; leave the stage out")
    name_nodes(model)
    types = tensor_types(model)
    seen = limit_tokens(context.calibration, params.calibration_tokens).features
    peaks = find_peaks(model, [name for name, kind in types.items() if kind == FLOAT], seen, context)
    kept = choose(model, peaks, params)
    floating = _floating(model, types)
    if not floating - {each.node for each in kept}:
        raise StageError(f"{NAME}: every node would stay in FP32; raise 'max_magnitude' or widen 'include'")
    onnx.save(_convert(model, types, [each.node for each in kept]), out / MODEL_FILE)
    difference = check_parity(out, source, context, stage=NAME, tolerance=params.tolerance)
    judge = make_judge(context, context.open("torch", context.reference.path), tokens=params.tuning_tokens)
    loss = judge.assess(context.open("onnx", out))
    large = sorted((each for each in kept if each.node in floating and each.peak > 0), key=lambda each: -each.peak)
    facts: Facts = {
        "fp16_nodes": len(floating - {each.node for each in kept}),
        "fp32_nodes": len({each.node for each in kept} & floating),
        "largest_activation": max(peaks.values(), default=0.0),
        "calibration_texts": len(seen),
        "max_difference": difference,
        **judge.facts(loss),
    }
    if large:
        facts["kept_fp32"] = [{"node": each.node, "why": each.why, "peak": each.peak} for each in large]
    return facts


def name_nodes(model: Any) -> None:
    """Give every node a name of its own, in place: the converter knows nodes by their names."""
    seen: set[str] = set()
    for index, node in enumerate(model.graph.node):
        if not node.name or node.name in seen:
            node.name = f"{node.op_type}_{index}"
        seen.add(node.name)


def _floating(model: Any, types: Mapping[str, int]) -> set[str]:
    """The nodes that give FP32, constants aside."""
    return {
        node.name
        for node in model.graph.node
        if node.op_type != "Constant" and any(types.get(name) == FLOAT for name in node.output)
    }


def find_peaks(model: Any, tensors: Sequence[str], features: Sequence[Feature], context: Context) -> dict[str, float]:
    """The largest magnitude of each tensor on calibration data; what attention hides counts as its output's."""
    hidden = expose_attention(model)
    ranges = calibrate(
        hidden.model,
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


@dataclass(frozen=True)
class Exposed:
    """A graph with what attention hides beside it, and the output of the node that hides each."""

    model: Any
    owners: Mapping[str, str]


def expose_attention(model: Any) -> Exposed:
    """A copy in which each fused Attention's projections, and the products of queries and keys, are tensors too."""
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    widths = {tensor.name: int(tensor.dims[-1]) for tensor in copy.graph.initializer if tensor.dims}
    owners: dict[str, str] = {}
    for node in [node for node in model.graph.node if node.op_type == "Attention" and node.domain == "com.microsoft"]:
        attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        heads, at = int(attributes["num_heads"]), f"{node.name}_exposed"
        third = widths[node.input[1]] // 3
        sizes = [int(size) for size in attributes.get("qkv_hidden_sizes", (third, third, third))]
        scale = float(attributes.get("scale", 0.0)) or 1.0 / math.sqrt(sizes[0] / heads)
        copy.graph.initializer.extend(
            [
                numpy_helper.from_array(np.array(sizes, dtype=np.int64), f"{at}_sizes"),
                numpy_helper.from_array(np.array([0, 0, heads, -1], dtype=np.int64), f"{at}_shape"),
                numpy_helper.from_array(np.array(scale, dtype=np.float32), f"{at}_scale"),
            ]
        )
        copy.graph.node.extend(
            [
                helper.make_node("MatMul", [node.input[0], node.input[1]], [f"{at}_products"]),
                helper.make_node("Add", [f"{at}_products", node.input[2]], [f"{at}_qkv"]),
                helper.make_node("Split", [f"{at}_qkv", f"{at}_sizes"], [f"{at}_q", f"{at}_k", f"{at}_v"], axis=2),
                helper.make_node("Reshape", [f"{at}_q", f"{at}_shape"], [f"{at}_queries"]),
                helper.make_node("Reshape", [f"{at}_k", f"{at}_shape"], [f"{at}_keys"]),
                helper.make_node("Transpose", [f"{at}_queries"], [f"{at}_rows"], perm=[0, 2, 1, 3]),
                helper.make_node("Transpose", [f"{at}_keys"], [f"{at}_columns"], perm=[0, 2, 3, 1]),
                helper.make_node("MatMul", [f"{at}_rows", f"{at}_columns"], [f"{at}_unscaled"]),
                helper.make_node("Mul", [f"{at}_unscaled", f"{at}_scale"], [f"{at}_scores"]),
            ]
        )
        owners |= {f"{at}_qkv": node.output[0], f"{at}_scores": node.output[0]}
    return Exposed(copy, owners)


def choose(model: Any, peaks: Mapping[str, float], params: Params) -> list[Kept]:
    """The nodes that stay in FP32, in the order of the graph."""
    weights = {tensor.name: _largest(tensor) for tensor in model.graph.initializer if tensor.data_type == FLOAT}
    names = [node.name for node in model.graph.node]
    wanted = set(_matching(names, params.include)) - set(_matching(names, params.exclude))
    kept = []
    for node in model.graph.node:
        activation = _most(peaks, [*node.input, *node.output])
        weight = _most(weights, node.input)
        if node.op_type in QUANTIZED_OPERATORS:
            kept.append(Kept(node.name, "quantized", 0.0))
        elif node.name not in wanted:
            kept.append(Kept(node.name, "left out by 'include' or 'exclude'", 0.0))
        elif activation > params.max_magnitude:
            kept.append(Kept(node.name, f"an activation beyond {params.max_magnitude:g}", activation))
        elif weight > LARGEST:
            kept.append(Kept(node.name, f"a weight beyond {LARGEST:g}", weight))
    return kept


def _largest(tensor: Any) -> float:
    import numpy as np
    from onnx import numpy_helper

    return float(np.abs(numpy_helper.to_array(tensor)).max(initial=0.0))


def _most(found: Mapping[str, float], names: Iterable[str]) -> float:
    return max((found.get(name, 0.0) for name in names), default=0.0)


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


def _convert(model: Any, types: Mapping[str, int], kept: Sequence[str]) -> Any:
    from onnx import helper
    from onnxruntime.transformers.float16 import convert_float_to_float16

    outputs = {value.name for value in model.graph.output}
    del model.graph.value_info[:]
    model.graph.value_info.extend(
        helper.make_tensor_value_info(name, kind, None)
        for name, kind in types.items()
        if kind == FLOAT and name not in outputs
    )
    logging.getLogger("onnxruntime.transformers").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # Weights below the least FP16 number become that number.
        warnings.simplefilter("ignore")
        converted = convert_float_to_float16(
            model, keep_io_types=True, disable_shape_infer=True, node_block_list=list(kept)
        )
    del converted.graph.value_info[:]
    join_casts(converted)
    return converted


def join_casts(model: Any) -> None:
    """Let FP32 nodes read from one another without a cast to FP16 in between, and nodes share casts, in place.

    The converter casts the result of every node that stays in FP32 to FP16, and back for the next that does: what is
    too large for FP16 would be infinite after all. It also writes the same cast once for each node that reads it.
    """
    graph = model.graph
    casts = {node.output[0]: node for node in graph.node if node.op_type == "Cast"}
    wide = {
        name: casts[node.input[0]].input[0]
        for name, node in casts.items()
        if _to(node) == FLOAT and node.input[0] in casts and _to(casts[node.input[0]]) == FLOAT16
    }
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = wide.get(name, name)
    read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    kept = [node for node in graph.node if node.op_type != "Cast" or casts[node.output[0]] is node]
    kept = [node for node in kept if node.op_type != "Cast" or node.output[0] in read]
    del graph.node[:]
    graph.node.extend(kept)


def _to(cast: Any) -> int:
    return int(next(each.i for each in cast.attribute if each.name == "to"))


STAGE = Stage(
    run=run,
    params=Params,
    takes="onnx",
    gives="onnx",
    needs=("onnxruntime", "onnx"),
    summary="FP16, save for nodes whose activations get too large on calibration data",
)
