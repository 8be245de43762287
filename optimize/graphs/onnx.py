"""ONNX graphs as onnx_ir holds them: values that know their producer and uses, edits in place, and passes.

A protobuf knows names alone, so every edit there begins with maps from names to nodes, and every removal searches a
list. onnx_ir (https://github.com/onnx/ir-py) links values and nodes and reads weights only when asked for them; a
clone shares them. ONNX Runtime's own tools take protobufs: `to_proto` is the border.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from optimize.errors import StageError

if TYPE_CHECKING:
    import numpy.typing as npt
    import onnx
    import onnx_ir as ir

READOUT_SLICE = "distilbert_optimize.readout_slice"
"""Metadata key: whether the last layer computes only the first token ("yes" or "no")."""

QUANTIZED_OPERATORS = frozenset(
    {
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "QAttention",
        "QEmbedLayerNormalization",
        "GatherBlockQuantized",
        "QLinearMatMul",
        "QuantizeLinear",
        "DequantizeLinear",
    }
)
LARGE_BYTES = 50 * 2**20
PRODUCTS = frozenset({"MatMul", "Gemm", "Attention"})
"""Float operators that multiply with weights."""


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """The protobuf of a model, a copy of its weights included.

    Shapes that were noted of values between nodes are kept: by them ONNX Runtime proves that a residual sum and its
    LayerNormalization can be fused. Weights say themselves what they are.
    """
    import onnx_ir

    # Nodes and values of onnx_ir refer to one another, so a model that was dropped keeps its weights until collected.
    # That takes up to a second beside PyTorch, which is worth it where weights are large.
    if sum(weight.const_value.nbytes for weight in model.graph.initializers.values()) > LARGE_BYTES:
        gc.collect()
    proto = onnx_ir.to_proto(model)
    noted = [info for info in proto.graph.value_info if info.name not in model.graph.initializers]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(noted)
    return proto


def save(model: ir.Model, path: Path) -> None:
    """Write a model to a file, weights included."""
    import onnx

    onnx.save(to_proto(model), path)


def refuse_quantized(model: ir.Model, *, stage: str) -> None:
    """Refuse a graph that holds quantized operators already."""
    found = sorted({node.op_type for node in model.graph} & QUANTIZED_OPERATORS)
    if found:
        raise StageError(
            f"{stage}: the model is quantized already ({', '.join(found)}); start from the FP32 checkpoint"
        )


def add_weight(graph: ir.Graph, name: str, array: npt.ArrayLike) -> ir.Value:
    """A new initializer of a graph."""
    import onnx_ir

    value = onnx_ir.val(name, const_value=onnx_ir.tensor(np.asarray(array), name=name))
    graph.register_initializer(value)
    return value


def record(
    tape: ir.tape.Tape,
    operator: str,
    inputs: Sequence[ir.Value | None],
    output: str,
    *,
    name: str = "",
    domain: str = "",
    **attributes: object,
) -> ir.Value:
    """Record a node with one output of a given name on a tape, which `replace` puts into a graph; its output."""
    import onnx_ir

    return tape.op(operator, inputs, attributes, name=name, domain=domain, output=onnx_ir.val(output))


def replace(old: Sequence[ir.Node], tape: ir.tape.Tape, result: ir.Value) -> None:
    """Put recorded nodes where the last of `old` stood; who read its output reads `result`, under the old name."""
    from onnx_ir.convenience import replace_nodes_and_values

    last = old[-1]
    replace_nodes_and_values(last.graph, last, old, tape.nodes, last.outputs, [result])


def weight_behind(value: ir.Value | None) -> ir.Value | None:
    """The initializer that a value is, or is the transpose of; None where it is computed from something else.

    A projection that is tied to the embedding reads the embedding's table through a Transpose.
    """
    if value is None or value.is_initializer():
        return value
    maker = value.producer()
    if maker is None or maker.op_type != "Transpose" or not maker.inputs[0].is_initializer():
        return None
    return maker.inputs[0]


def count_float_products(graph: ir.Graph) -> int:
    """How many products with a weight are computed in float."""
    return sum(node.op_type in PRODUCTS and any(map(weight_behind, node.inputs)) for node in graph)
