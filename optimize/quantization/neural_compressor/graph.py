"""From the traced QDQ graph to one that is small and that ONNX Runtime runs in integers.

The exporter leaves every weight as an FP32 initializer that is quantized whenever the model runs:
QuantizeLinear, Clip, DequantizeLinear, Transpose, MatMul. Here the first two are computed once, the
transpose goes into the weight, and Gemm, whose float bias ONNX Runtime does not take beside
integers, becomes MatMul and Add. What is left is the pattern that fuses to MatMulIntegerToFloat.
A projection that is tied to the embedding reads the embedding's INT8 table, row by row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from optimize.graphs.onnx import add_weight, count_float_products, record, replace
from optimize.interfaces import Facts
from optimize.quantization.tables import quantize_tables
from optimize.quantization.weights import Array

if TYPE_CHECKING:
    import onnx_ir as ir

GEMM = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 1}
"""A Gemm that is a linear layer as PyTorch writes it: x times the transpose of W [out, in], plus b."""


@dataclass(frozen=True)
class Weight:
    """What a product multiplies with: `array` is [in, out], `scale` [out] or a scalar."""

    name: str
    array: Array
    scale: Array
    low: int
    high: int

    def integers(self) -> Array:
        """The INT8 weight, [in, out]."""
        found: Array = np.clip(np.rint(self.array / self.scale), self.low, self.high).astype(np.int8)
        return found


def fold(model: ir.Model, *, reduce_range: bool) -> Facts:
    """Make weights and tables INT8 initializers, in place; facts say how many."""
    from onnx_ir.passes.common import RemoveUnusedNodesPass
    from onnx_ir.tape import Tape

    _strip(model)
    tables, folded = _tables(model.graph), 0
    for product in model.graph:
        weight = _weight(product) if product.op_type in ("MatMul", "Gemm") else None
        if weight is None:
            continue
        tape, table = Tape(), _same(tables, weight.array.T)
        right = _read_integers(tape, product, weight) if table is None else _read_table(tape, product, table)
        replace([product], tape, _multiply(tape, product, right))
        folded += 1
    RemoveUnusedNodesPass()(model)
    facts = quantize_tables(model, reduce_range=reduce_range, project=_project)
    return {"quantized_matmuls": folded, "float_matmuls": count_float_products(model.graph), **facts}


def _strip(model: ir.Model) -> None:
    """Drop what the exporter notes beside the graph: stack traces with this machine's paths, inner shapes."""
    import onnx_ir
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    ClearMetadataAndDocStringPass()(model)
    # The pass leaves what is noted at the model and at its values.
    weights = model.graph.initializers.values()
    for noted in (model, *model.graph.inputs, *model.graph.outputs, *weights):
        noted.metadata_props.clear()
        noted.doc_string = None
    for weight in weights:
        weight.const_value.metadata_props.clear()
        if isinstance(weight.const_value, onnx_ir.Tensor):  # one that was read from a file takes no other doc string
            weight.const_value.doc_string = None
    for node in model.graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.type = value.shape = None


def _tables(graph: ir.Graph) -> list[ir.Value]:
    """What look-ups read, by name."""
    found = {node.inputs[0].name for node in graph if node.op_type == "Gather" and node.inputs[0].is_initializer()}
    return [graph.initializers[name] for name in sorted(found)]


def _same(tables: Sequence[ir.Value], array: Array) -> ir.Value | None:
    """The table with the values of an array: the exporter writes the weight of a tied projection a second time."""
    for table in tables:
        if np.array_equal(table.const_value.numpy(), array):
            return table
    return None


def _weight(product: ir.Node) -> Weight | None:
    """The initializer behind QuantizeLinear, Clip, DequantizeLinear, Transpose, in that order."""
    transposed = product.op_type == "Gemm"
    if transposed and {name: attribute.value for name, attribute in product.attributes.items()} != GEMM:
        return None
    maker = product.inputs[1].producer()
    if maker is not None and maker.op_type == "Transpose" and list(maker.attributes.get_ints("perm")) == [1, 0]:
        transposed, maker = True, maker.inputs[0].producer()
    if maker is None or maker.op_type != "DequantizeLinear":
        return None
    low, high = -128, 127
    maker = maker.inputs[0].producer()
    if maker is not None and maker.op_type == "Clip":
        low, high = (int(value.const_value.numpy()) for value in maker.inputs[1:3])
        maker = maker.inputs[0].producer()
    if maker is None or maker.op_type != "QuantizeLinear" or not maker.inputs[0].is_initializer():
        return None
    array, scale = (value.const_value.numpy() for value in maker.inputs[:2])
    return Weight(maker.inputs[0].name, array.T if transposed else array, scale.astype(np.float32), low, high)


def _read_integers(tape: ir.tape.Tape, product: ir.Node, weight: Weight) -> ir.Value:
    """The INT8 weight as an initializer, dequantized: ONNX Runtime fuses that with the product."""
    graph = product.graph
    parts = [
        add_weight(graph, f"{weight.name}_quantized", weight.integers()),
        add_weight(graph, f"{weight.name}_scale", weight.scale),
        add_weight(graph, f"{weight.name}_zero", np.zeros(weight.scale.shape, dtype=np.int8)),
    ]
    # The axis counts only where there is a scale for each output channel.
    return record(tape, "DequantizeLinear", parts, f"{product.outputs[0].name}_weight", axis=1)


def _read_table(tape: ir.tape.Tape, product: ir.Node, table: ir.Value) -> ir.Value:
    """The float form of a tied projection's weight, which `quantize_tables` knows."""
    return record(tape, "Transpose", [table], f"{product.outputs[0].name}_weight", perm=[1, 0])


def _multiply(tape: ir.tape.Tape, product: ir.Node, weight: ir.Value) -> ir.Value:
    """A MatMul in the place of a MatMul or a Gemm, whose bias becomes an Add."""
    x, at, name = product.inputs[0], product.outputs[0].name, product.name
    if product.op_type == "MatMul":
        return record(tape, "MatMul", [x, weight], at, name=name)
    found = record(tape, "MatMul", [x, weight], f"{at}_product", name=name)
    return record(tape, "Add", [found, product.inputs[2]], at, name=f"{name}_bias")


def _project(tape: ir.tape.Tape, product: ir.Node, rows: ir.Value, scales: ir.Value) -> ir.Value:
    """Multiply with an INT8 table: a row's scale is its output channel's."""
    x, at, turn = product.inputs[0], product.outputs[0].name, product.inputs[1].producer().name
    columns = record(tape, "Transpose", [rows], f"{at}_columns", name=turn, perm=[1, 0])
    weight = record(tape, "DequantizeLinear", [columns, scales], f"{at}_weight", axis=1)
    return record(tape, "MatMul", [x, weight], at, name=product.name)
