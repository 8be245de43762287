"""Write the INT8 graph: QuantizeLinear and DequantizeLinear through onnxruntime, or its integer operators.

Only what linear layers read is quantized. The residual stream, LayerNorm and softmax stay in
float, which is where ready-made static quantization loses its points: a tensor that feeds both a
linear layer and a residual sum gets a pair of its own for the layer. Results are float, so a
bias is added exactly.

`qdq` is the form that other runtimes read too. `qoperator` has MatMulIntegerToFloat with its bias in
place of the pairs, as ONNX Runtime would fuse them itself, save that it leaves the bias out.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from optimize.quantization.integer_operators import drop_unused, to_integer_operators
from optimize.quantization.ranges import Range
from optimize.quantization.sites import Group, Site
from optimize.quantization.tables import quantize_tables
from optimize.quantization.weights import Array, channel_scales, quantize

Form = Literal["qdq", "qoperator"]


@dataclass(frozen=True)
class Scheme:
    """How numbers become INT8. `wide_sums`: the CPU adds products in 32 bits, so no weight needs to be held back."""

    activation: Literal["uint8", "int8"] = "uint8"
    symmetric: bool = False
    per_channel: bool = True
    wide_sums: bool = False


def activation_scale(found: Range, scheme: Scheme) -> tuple[np.float32, int]:
    """Scale and zero point of a range; zero is exact. Symmetric ranges have their zero in the middle."""
    lowest, highest = (0, 255) if scheme.activation == "uint8" else (-128, 127)
    if scheme.symmetric:
        peak = max(-found.low, found.high)
        return np.float32(peak / 127.0), 128 if scheme.activation == "uint8" else 0
    scale = np.float32((found.high - found.low) / 255.0)
    return scale, int(np.clip(np.rint(lowest - found.low / scale), lowest, highest))


def round_activations(rows: Array, scheme: Scheme) -> Array:
    """What is left of `rows` after INT8 with their own range."""
    found = Range(min(float(rows.min()), 0.0), max(float(rows.max()), 0.0, 1e-12))
    scale, zero = activation_scale(found, scheme)
    lowest, highest = (0, 255) if scheme.activation == "uint8" else (-128, 127)
    rounded: Array = (np.clip(np.rint(rows / scale) + zero, lowest, highest) - zero) * scale
    return rounded


def round_weights(weight: Array, scheme: Scheme) -> Array:
    """What is left of weights [K, N] after INT8."""
    scales = channel_scales(weight, per_channel=scheme.per_channel, wide_sums=scheme.wide_sums)
    return quantize(weight, scales) * scales


def build(model: Any, groups: Sequence[Group], ranges: Mapping[str, Range], scheme: Scheme, form: Form) -> Any:
    """A new graph in which `groups` of a normalised float graph are INT8; `ranges` holds what products read."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    sites = [site for group in groups for site in group.sites]
    products = [site for site in sites if not site.looks_up and not site.tied]
    written = quantize_sites(copy, products, ranges, scheme) if products else copy
    tables = {site.weight for site in sites if site.looks_up}
    quantize_tables(
        written,
        wide_sums=scheme.wide_sums,
        project=functools.partial(_project, ranges=ranges, scheme=scheme),
        only=tables,
    )
    if form == "qoperator":
        to_integer_operators(written)
    drop_unused(written)
    return written


def _project(transpose: Any, matmul: Any, table: str, *, ranges: Mapping[str, Range], scheme: Scheme) -> list[Any]:
    """The tied projection: dequantize the INT8 table, turned on its side, with a row's scale as a column's."""
    from onnx import helper

    x, at = matmul.input[0], matmul.output[0]
    scale, zero = activation_scale(ranges[x], scheme)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(scheme.activation))
    return [
        helper.make_node("Constant", [], [x + "_scale"], value_float=float(scale)),
        helper.make_node("Constant", [], [x + "_zero"], value=helper.make_tensor(x + "_zero", kind, [], [zero])),
        helper.make_node("QuantizeLinear", [x, x + "_scale", x + "_zero"], [x + "_quantized"]),
        helper.make_node("DequantizeLinear", [x + "_quantized", x + "_scale", x + "_zero"], [x + "_dequantized"]),
        helper.make_node("Transpose", [table + "_quantized"], [at + "_weight"], name=transpose.name, perm=[1, 0]),
        helper.make_node("DequantizeLinear", [at + "_weight", table + "_scale"], [at + "_float"], axis=1),
        helper.make_node("MatMul", [x + "_dequantized", at + "_float"], [at], name=matmul.name),
    ]


def quantize_sites(model: Any, sites: Sequence[Site], ranges: Mapping[str, Range], scheme: Scheme) -> Any:
    """A QDQ graph of the products among `sites`; `ranges` holds what each one reads."""
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    kind = QuantType.QUInt8 if scheme.activation == "uint8" else QuantType.QInt8
    overrides: dict[str, list[dict[str, Any]]] = {}
    for site in sites:
        scale, zero = activation_scale(ranges[site.reads], scheme)
        overrides[site.reads] = [_override(kind, scale, zero)]
        overrides[site.weight] = _weight_overrides(weights[site.weight], scheme)
    known = {
        name: TensorData(lowest=np.float32(ranges[name].low), highest=np.float32(ranges[name].high))
        for name in {site.reads for site in sites}
    }
    with quiet():
        quantizer = QDQQuantizer(
            model,
            per_channel=scheme.per_channel,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            activation_qType=kind,
            tensors_range=TensorsData(CalibrationMethod.MinMax, known),
            nodes_to_quantize=[site.node for site in sites],
            nodes_to_exclude=[],
            op_types_to_quantize=["MatMul"],
            extra_options={
                "DedicatedQDQPair": True,
                "OpTypesToExcludeOutputQuantization": ["MatMul"],
                "TensorQuantOverrides": overrides,
            },
        )
        quantizer.quantize_model()
    written = quantizer.model.model
    share_pairs(written)
    spare_others(written, {site.node for site in sites})
    return written


def _override(kind: Any, scale: Any, zero: int) -> dict[str, Any]:
    return {
        "quant_type": kind,
        "scale": np.array(scale, dtype=np.float32),
        "zero_point": np.array(zero, dtype=np.int8 if kind.name == "QInt8" else np.uint8),
    }


def _weight_overrides(tensor: Any, scheme: Scheme) -> list[dict[str, Any]]:
    from onnx import numpy_helper
    from onnxruntime.quantization import QuantType

    scales = channel_scales(numpy_helper.to_array(tensor), per_channel=scheme.per_channel, wide_sums=scheme.wide_sums)
    found = [_override(QuantType.QInt8, scale, 0) for scale in (scales if scheme.per_channel else scales[:1])]
    if scheme.per_channel:
        found[0]["axis"] = 1
    return found


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep onnxruntime's advice on preprocessing off the screen."""
    before = logging.getLogger().manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def share_pairs(model: Any) -> None:
    """Let all readers of a tensor share one quantized copy: queries, keys and values read the same."""
    from onnxruntime.quantization.onnx_model import ONNXModel

    ONNXModel(model).topological_sort()
    first: dict[tuple[str, ...], str] = {}
    renamed: dict[str, str] = {}
    for node in list(model.graph.node):
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        key = (node.op_type, *node.input)
        if key in first:
            renamed[node.output[0]] = first[key]
            model.graph.node.remove(node)
        else:
            first[key] = node.output[0]


def spare_others(model: Any, quantized: Set[str]) -> None:
    """Let nodes not in `quantized` read float: onnxruntime redirects the neighbours of a lone reader, too."""
    makers = {node.output[0]: node for node in model.graph.node}
    sources = {
        name: makers[node.input[0]].input[0]
        for name, node in makers.items()
        if node.op_type == "DequantizeLinear" and node.input[0] in makers
    }
    for node in model.graph.node:
        if node.name not in quantized:
            for index, name in enumerate(node.input):
                node.input[index] = sources.get(name, name)
