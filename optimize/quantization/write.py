"""Write the INT8 graph: QuantizeLinear and DequantizeLinear through onnxruntime, or its integer operators.

Only what linear layers read is quantized. The residual stream, LayerNorm and softmax stay in
float, which is where ready-made static quantization loses its points: a tensor that feeds both a
linear layer and a residual sum gets a pair of its own for the layer. Results are float, so a
bias is added exactly.

`qdq` is the form that other runtimes read too. `qoperator` has MatMulIntegerToFloat with its bias in
place of the pairs, as ONNX Runtime would fuse them itself, save that it leaves the bias out.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypedDict

import numpy as np

from optimize.graphs.onnx import record, to_proto
from optimize.quantization.integer_operators import to_integer_operators
from optimize.quantization.ranges import Range
from optimize.quantization.sites import Group, Site
from optimize.quantization.tables import TableBits, quantize_tables
from optimize.quantization.weights import Array, channel_scales, quantize
from optimize.runtimes.quiet import silent

if TYPE_CHECKING:
    import onnx_ir as ir
    from onnxruntime.quantization import QuantType

Form = Literal["qdq", "qoperator"]


@dataclass(frozen=True)
class Scheme:
    """How numbers become INT8. `reduce_range`: weights stay so small that sums of 16 bits cannot saturate.

    `table_bits` are those of embedding tables.
    """

    activation: Literal["uint8", "int8"] = "uint8"
    symmetric: bool = False
    per_channel: bool = True
    reduce_range: bool = True
    table_bits: TableBits = 8


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
    scales = channel_scales(weight, per_channel=scheme.per_channel, reduce_range=scheme.reduce_range)
    return quantize(weight, scales) * scales


def build(
    model: ir.Model, groups: Sequence[Group], ranges: Mapping[str, Range], scheme: Scheme, form: Form
) -> ir.Model:
    """A new graph in which `groups` of a normalised float graph are INT8; `ranges` holds what products read."""
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    sites = [site for group in groups for site in group.sites]
    products = [site for site in sites if not site.looks_up and not site.tied]
    # A clone shares the weights: a variant of a 270 MB model costs what is quantized in it.
    written = quantize_sites(model, products, ranges, scheme) if products else model.clone()
    project = functools.partial(_project, ranges=ranges, scheme=scheme)
    tables = {site.weight for site in sites if site.looks_up}
    bits = scheme.table_bits
    quantize_tables(written, reduce_range=scheme.reduce_range, project=project, only=tables, bits=bits)
    if form == "qoperator":
        to_integer_operators(written)
    RemoveUnusedNodesPass()(written)
    return written


def _project(
    tape: ir.tape.Tape,
    product: ir.Node,
    rows: ir.Value,
    scales: ir.Value,
    *,
    ranges: Mapping[str, Range],
    scheme: Scheme,
) -> ir.Value:
    """The tied projection: dequantize the INT8 table, turned on its side, with a row's scale as a column's."""
    import onnx_ir

    x, at, turn = product.inputs[0], product.outputs[0].name, product.inputs[1].producer().name
    step, level = activation_scale(ranges[x.name], scheme)
    point = onnx_ir.tensor(np.array(level, dtype=scheme.activation), name=f"{x.name}_zero")
    scale = record(tape, "Constant", [], f"{x.name}_scale", value_float=float(step))
    zero = record(tape, "Constant", [], f"{x.name}_zero", value=point)
    integers = record(tape, "QuantizeLinear", [x, scale, zero], f"{x.name}_quantized")
    left = record(tape, "DequantizeLinear", [integers, scale, zero], f"{x.name}_dequantized")
    columns = record(tape, "Transpose", [rows], f"{at}_weight", name=turn, perm=[1, 0])
    right = record(tape, "DequantizeLinear", [columns, scales], f"{at}_float", axis=1)
    return record(tape, "MatMul", [left, right], at, name=product.name)


class Override(TypedDict, total=False):
    """How onnxruntime is told to quantize a tensor, or one channel of it; its own words."""

    quant_type: QuantType
    scale: Array
    zero_point: Array
    axis: int


def quantize_sites(model: ir.Model, sites: Sequence[Site], ranges: Mapping[str, Range], scheme: Scheme) -> ir.Model:
    """A new QDQ graph of the products among `sites`; `ranges` holds what each one reads."""
    import onnx_ir
    from onnx_ir.passes.common import CommonSubexpressionEliminationPass
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    kind = QuantType.QUInt8 if scheme.activation == "uint8" else QuantType.QInt8
    overrides: dict[str, list[Override]] = {}
    known = {}
    for site in sites:
        found = ranges[site.reads]
        known[site.reads] = TensorData(lowest=np.float32(found.low), highest=np.float32(found.high))
        overrides[site.reads] = [_override(kind, *activation_scale(found, scheme))]
        weight = model.graph.initializers[site.weight].const_value.numpy()
        overrides[site.weight] = _weight_overrides(weight, scheme)
    with silent():  # advice on preprocessing
        quantizer = QDQQuantizer(
            to_proto(model),
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
    written = onnx_ir.from_proto(quantizer.model.model)
    # onnxruntime appends its pairs at the end, one for each reader: queries, keys and values can share theirs.
    written.graph.sort()
    CommonSubexpressionEliminationPass()(written)
    spare_others(written, {site.node for site in sites})
    return written


def _override(kind: QuantType, scale: np.float32, zero: int) -> Override:
    return {
        "quant_type": kind,
        "scale": np.array(scale, dtype=np.float32),
        "zero_point": np.array(zero, dtype=np.int8 if kind.name == "QInt8" else np.uint8),
    }


def _weight_overrides(weight: Array, scheme: Scheme) -> list[Override]:
    from onnxruntime.quantization import QuantType

    scales = channel_scales(weight, per_channel=scheme.per_channel, reduce_range=scheme.reduce_range)
    found = [_override(QuantType.QInt8, scale, 0) for scale in (scales if scheme.per_channel else scales[:1])]
    if scheme.per_channel:
        found[0]["axis"] = 1
    return found


def spare_others(model: ir.Model, quantized: Set[str]) -> None:
    """Let nodes not in `quantized` read float: onnxruntime redirects the neighbours of a lone reader, too."""
    for node in model.graph:
        pair = node.inputs[0].producer() if node.op_type == "DequantizeLinear" else None
        if pair is None:
            continue  # a weight has no QuantizeLinear before it
        for reader, place in node.outputs[0].uses():
            if reader.name not in quantized:
                reader.replace_input_with(place, pair.inputs[0])
