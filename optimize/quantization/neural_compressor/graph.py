"""From the traced QDQ graph to one that is small and that ONNX Runtime runs in integers.

The exporter leaves every weight as an FP32 initializer that is quantized whenever the model runs:
QuantizeLinear, Clip, DequantizeLinear, Transpose, MatMul. Here the first two are computed once, the
transpose goes into the weight, and Gemm, whose float bias ONNX Runtime does not take beside
integers, becomes MatMul and Add. What is left is the pattern that fuses to MatMulIntegerToFloat.
A projection that is tied to the embedding reads the embedding's INT8 table, row by row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from optimize.interfaces import Facts
from optimize.quantization.tables import quantize_tables

Array = np.ndarray[Any, Any]


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


def fold(model: Any, *, wide_sums: bool) -> Facts:
    """Make weights and tables INT8 initializers, in place; facts say how many."""
    from onnx import numpy_helper

    graph = model.graph
    _strip(model)
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    tables = sorted({node.input[0] for node in graph.node if node.op_type == "Gather"} & set(arrays))
    producers = {name: node for node in graph.node for name in node.output}
    nodes, folded = [], 0
    for node in graph.node:
        weight = _weight(node, producers, arrays) if node.op_type in ("MatMul", "Gemm") else None
        if weight is None:
            nodes.append(node)
            continue
        table = next((name for name in tables if np.array_equal(arrays[name], weight.array.T)), None)
        nodes += _read_table(node, table) if table else _read_integers(node, weight, graph)
        folded += 1
    _keep_live(graph, nodes)
    facts = quantize_tables(model, wide_sums=wide_sums, project=_project)
    return {"quantized_matmuls": folded, "float_matmuls": _float_products(graph), **facts}


def _strip(model: Any) -> None:
    """Drop what the exporter notes beside the graph: stack traces with this machine's paths, inner shapes."""
    graph = model.graph
    for noted in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del noted.metadata_props[:]
        noted.doc_string = ""
    del graph.value_info[:]


def _weight(product: Any, producers: Mapping[str, Any], arrays: Mapping[str, Array]) -> Weight | None:
    """The initializer behind QuantizeLinear, Clip, DequantizeLinear, Transpose, in that order."""
    found = producers.get(product.input[1])
    transposed = product.op_type == "Gemm"
    if transposed and _attributes(product) != {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 1}:
        return None
    if found is not None and found.op_type == "Transpose" and _attributes(found)["perm"] == [1, 0]:
        transposed, found = True, producers.get(found.input[0])
    if found is None or found.op_type != "DequantizeLinear":
        return None
    low, high = -128, 127
    found = producers.get(found.input[0])
    if found is not None and found.op_type == "Clip":
        low, high = (int(arrays[name]) for name in found.input[1:3])
        found = producers.get(found.input[0])
    if found is None or found.op_type != "QuantizeLinear" or found.input[0] not in arrays:
        return None
    array, scale = arrays[found.input[0]], arrays[found.input[1]].astype(np.float32)
    return Weight(found.input[0], array.T if transposed else array, scale, low, high)


def _attributes(node: Any) -> dict[str, Any]:
    from onnx import helper

    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _read_integers(product: Any, weight: Weight, graph: Any) -> list[Any]:
    from onnx import helper, numpy_helper

    quantized, scale, zero = (f"{weight.name}_{what}" for what in ("quantized", "scale", "zero"))
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.ascontiguousarray(weight.integers()), quantized),
            numpy_helper.from_array(weight.scale, scale),
            numpy_helper.from_array(np.zeros(weight.scale.shape, dtype=np.int8), zero),
        ]
    )
    axis = {"axis": 1} if weight.scale.ndim else {}
    at = product.output[0] + "_weight"
    return [helper.make_node("DequantizeLinear", [quantized, scale, zero], [at], **axis), *_multiply(product, at)]


def _read_table(product: Any, table: str) -> list[Any]:
    """The float form of a tied projection, which `quantize_tables` knows."""
    from onnx import helper

    at = product.output[0] + "_weight"
    return [helper.make_node("Transpose", [table], [at], perm=[1, 0]), *_multiply(product, at)]


def _multiply(product: Any, weight: str) -> list[Any]:
    from onnx import helper

    output = product.output[0]
    if product.op_type == "MatMul":
        return [helper.make_node("MatMul", [product.input[0], weight], [output], name=product.name)]
    return [
        helper.make_node("MatMul", [product.input[0], weight], [output + "_product"], name=product.name),
        helper.make_node("Add", [output + "_product", product.input[2]], [output], name=product.name + "_bias"),
    ]


def _project(transpose: Any, product: Any, table: str) -> list[Any]:
    """Multiply with an INT8 table: a row's scale is its output channel's."""
    from onnx import helper

    at = product.output[0]
    return [
        helper.make_node("Transpose", [table + "_quantized"], [at + "_columns"], name=transpose.name, perm=[1, 0]),
        helper.make_node("DequantizeLinear", [at + "_columns", table + "_scale"], [at + "_weight"], axis=1),
        helper.make_node("MatMul", [product.input[0], at + "_weight"], [at], name=product.name),
    ]


def _keep_live(graph: Any, nodes: list[Any]) -> None:
    """Let the graph consist of those of `nodes`, which are sorted, and initializers that lead to an output."""
    needed = {output.name for output in graph.output}
    live = []
    for node in reversed(nodes):
        if needed & set(node.output):
            needed |= set(node.input)
            live.append(node)
    kept = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(live))
    graph.initializer.extend(kept)


def _float_products(graph: Any) -> int:
    """Products with a weight that stayed in float."""
    weights = {tensor.name for tensor in graph.initializer}
    weights |= {node.output[0] for node in graph.node if node.op_type == "Transpose" and node.input[0] in weights}
    return sum(node.op_type in ("MatMul", "Gemm") and bool(set(node.input) & weights) for node in graph.node)
