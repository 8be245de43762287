"""Embedding tables in INT8: one scale per row, and one table even where a projection is tied to it.

A word's vector is then off by at most 1/254 of its own largest entry, whatever other words look
like. Where the masked-LM projection is tied to the embedding, both read the one table: a
row's scale is also its output channel's scale.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from optimize.interfaces import Array, Facts
from optimize.quantization.weights import channel_scales, quantize

if TYPE_CHECKING:
    import onnx

Project: TypeAlias = "Callable[[onnx.NodeProto, onnx.NodeProto, str], list[onnx.NodeProto]]"
"""Nodes that multiply with an INT8 table instead of a Transpose and a MatMul; given both, and the table's name."""


def quantize_tables(
    model: onnx.ModelProto, *, wide_sums: bool, project: Project, only: Collection[str] | None = None
) -> Facts:
    """Give each embedding table, or those of `only`, one INT8 copy with a scale per row, in place.

    A table is a 2-D float initializer that a Gather looks up. Only one that a projection multiplies
    with has to keep sums from overflowing where they are not `wide_sums`; a look-up never sums.
    """
    from onnx import numpy_helper

    graph = model.graph
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    lookups: dict[str, list[onnx.NodeProto]] = collections.defaultdict(list)
    for node in graph.node:
        if node.op_type == "Gather" and _is_table(initializers.get(node.input[0])):
            lookups[node.input[0]].append(node)
    names = [name for name in lookups if only is None or name in only]
    tied = 0
    for name in names:
        projections = _tied_projections(graph, name)
        table = numpy_helper.to_array(initializers[name])
        rows, scales = quantize_rows(table, wide_sums=wide_sums or not projections)
        graph.initializer.remove(initializers[name])
        graph.initializer.extend(
            [numpy_helper.from_array(rows, name + "_quantized"), numpy_helper.from_array(scales, name + "_scale")]
        )
        for node in lookups[name]:
            _replace(graph, [node], _lookup(node, name))
        for transpose, matmul in projections:
            _replace(graph, [transpose, matmul], project(transpose, matmul, name))
            tied += 1
    return {"quantized_tables": len(names), "tied_projections": tied}


def quantize_rows(table: Array, *, wide_sums: bool) -> tuple[Array, Array]:
    """Symmetric INT8 rows [R, D] and their float32 scales [R]; a row of zeros has scale 1."""
    scales = channel_scales(table.T, per_channel=True, wide_sums=wide_sums)
    return np.ascontiguousarray(quantize(table.T, scales).T), scales


def _is_table(tensor: onnx.TensorProto | None) -> bool:
    import onnx

    return tensor is not None and tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 2


def _tied_projections(graph: onnx.GraphProto, table: str) -> list[tuple[onnx.NodeProto, onnx.NodeProto]]:
    """Pairs of the Transpose that reads the table and the MatMul that multiplies with it."""
    consumers: dict[str, list[onnx.NodeProto]] = collections.defaultdict(list)
    for node in graph.node:
        for name in node.input:
            consumers[name].append(node)
    pairs = []
    for transpose in consumers[table]:
        if transpose.op_type != "Transpose":
            continue
        for reader in consumers[transpose.output[0]]:
            if reader.op_type == "MatMul" and reader.input[1] == transpose.output[0]:
                pairs.append((transpose, reader))
    return pairs


def _lookup(node: onnx.NodeProto, table: str) -> list[onnx.NodeProto]:
    """Rows of an INT8 table, each times its own scale."""
    from onnx import TensorProto, helper

    at = node.output[0]
    return [
        helper.make_node("Gather", [table + "_quantized", node.input[1]], [at + "_int8"], name=node.name + "_int8"),
        helper.make_node("Cast", [at + "_int8"], [at + "_cast"], to=TensorProto.FLOAT),
        helper.make_node("Gather", [table + "_scale", node.input[1]], [at + "_scale"], name=node.name + "_scale"),
        helper.make_node("Constant", [], [at + "_axis"], value_ints=[-1]),
        helper.make_node("Unsqueeze", [at + "_scale", at + "_axis"], [at + "_column"]),
        helper.make_node("Mul", [at + "_cast", at + "_column"], [at]),
    ]


def _replace(graph: onnx.GraphProto, old: list[onnx.NodeProto], new: list[onnx.NodeProto]) -> None:
    """Put `new` where the last of `old` stood, which keeps the graph sorted."""
    place = max(list(graph.node).index(node) for node in old)
    for offset, node in enumerate(new):
        graph.node.insert(place + 1 + offset, node)
    for node in old:
        graph.node.remove(node)
