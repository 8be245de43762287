"""Embedding tables in INT8: one scale per row, and one table even where a projection is tied to it.

A word's vector is then off by at most 1/254 of its own largest entry, whatever other words look
like. Where the masked-LM projection is tied to the embedding, both read the one table: a
row's scale is also its output channel's scale.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from optimize.interfaces import Facts
from optimize.quantization.weights import channel_scales, quantize

Project = Callable[[Any, Any, str], list[Any]]
"""Nodes that multiply with an INT8 table instead of a Transpose and a MatMul; given both, and the table's name."""


def quantize_tables(model: Any, *, wide_sums: bool, project: Project, only: Collection[str] | None = None) -> Facts:
    """Give each embedding table, or those of `only`, one INT8 copy with a scale per row, in place.

    A table is a 2-D float initializer that a Gather looks up. Only one that a projection multiplies
    with has to keep sums from overflowing where they are not `wide_sums`; a look-up never sums.
    """
    from onnx import numpy_helper

    graph = model.graph
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    lookups = [node for node in graph.node if node.op_type == "Gather" and _is_table(initializers.get(node.input[0]))]
    lookups = [node for node in lookups if only is None or node.input[0] in only]
    tied = 0
    for name in dict.fromkeys(node.input[0] for node in lookups):
        projections = _tied_projections(graph, name)
        table = numpy_helper.to_array(initializers[name])
        rows, scales = quantize_rows(table, wide_sums=wide_sums or not projections)
        graph.initializer.remove(initializers[name])
        graph.initializer.extend(
            [numpy_helper.from_array(rows, name + "_quantized"), numpy_helper.from_array(scales, name + "_scale")]
        )
        for node in [node for node in lookups if node.input[0] == name]:
            _replace(graph, [node], _lookup(node, name))
        for transpose, matmul in projections:
            _replace(graph, [transpose, matmul], project(transpose, matmul, name))
            tied += 1
    return {"quantized_tables": len({node.input[0] for node in lookups}), "tied_projections": tied}


def quantize_rows(table: np.ndarray[Any, Any], *, wide_sums: bool) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Symmetric INT8 rows [R, D] and their float32 scales [R]; a row of zeros has scale 1."""
    scales = channel_scales(table.T, per_channel=True, wide_sums=wide_sums)
    return np.ascontiguousarray(quantize(table.T, scales).T), scales


def _is_table(tensor: Any) -> bool:
    import onnx

    return tensor is not None and tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 2


def _tied_projections(graph: Any, table: str) -> list[tuple[Any, Any]]:
    """Pairs of the Transpose that reads the table and the MatMul that multiplies with it."""
    consumers: dict[str, list[Any]] = collections.defaultdict(list)
    for node in graph.node:
        for name in node.input:
            consumers[name].append(node)
    transposes = [node for node in consumers[table] if node.op_type == "Transpose"]
    return [
        (t, m)
        for t in transposes
        for m in consumers[t.output[0]]
        if m.op_type == "MatMul" and m.input[1] == t.output[0]
    ]


def _lookup(node: Any, table: str) -> list[Any]:
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


def _replace(graph: Any, old: list[Any], new: list[Any]) -> None:
    """Put `new` where the last of `old` stood, which keeps the graph sorted."""
    place = max(list(graph.node).index(node) for node in old)
    for offset, node in enumerate(new):
        graph.node.insert(place + 1 + offset, node)
    for node in old:
        graph.node.remove(node)
