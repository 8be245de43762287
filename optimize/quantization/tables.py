"""Embedding tables in INT8: one scale per row, and one table even where a projection is tied to it.

A word's vector is then off by at most 1/254 of its own largest entry, whatever other words look
like. Where the masked-LM projection is tied to the embedding, both read the one table: a
row's scale is also its output channel's scale.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

import numpy as np

from optimize.graphs.onnx import add_weight, record, replace
from optimize.interfaces import Facts
from optimize.quantization.weights import Array, channel_scales, quantize

if TYPE_CHECKING:
    import onnx_ir as ir

Project = Callable[["ir.tape.Tape", "ir.Node", "ir.Value", "ir.Value"], "ir.Value"]
"""Record nodes that multiply what a MatMul reads with an INT8 table, given its rows and their scales; their result."""


def quantize_tables(
    model: ir.Model, *, reduce_range: bool, project: Project, only: Collection[str] | None = None
) -> Facts:
    """Give each embedding table, or those of `only`, one INT8 copy with a scale per row, in place.

    A table is a 2-D float initializer that a Gather looks up. Only one that a projection multiplies
    with needs to `reduce_range`, so that its sums cannot overflow; a look-up never sums.
    """
    from onnx_ir.tape import Tape

    graph, tied = model.graph, 0
    tables = _tables(graph, only)
    for table in tables:
        lookups, projections = _lookups(table), _tied_projections(table)
        integers, steps = quantize_rows(table.const_value.numpy(), reduce_range=reduce_range and bool(projections))
        rows = add_weight(graph, f"{table.name}_quantized", integers)
        scales = add_weight(graph, f"{table.name}_scale", steps)
        for gather in lookups:
            tape = Tape()
            replace([gather], tape, _look_up(tape, gather, rows, scales))
        for transpose, product in projections:
            tape = Tape()
            replace([transpose, product], tape, project(tape, product, rows, scales))
        del graph.initializers[table.name]
        tied += len(projections)
    return {"quantized_tables": len(tables), "tied_projections": tied}


def quantize_rows(table: Array, *, reduce_range: bool) -> tuple[Array, Array]:
    """Symmetric INT8 rows [R, D] and their float32 scales [R]; a row of zeros has scale 1."""
    scales = channel_scales(table.T, per_channel=True, reduce_range=reduce_range)
    return np.ascontiguousarray(quantize(table.T, scales).T), scales


def _tables(graph: ir.Graph, only: Collection[str] | None) -> list[ir.Value]:
    """The tables in the order of their first look-up."""
    import onnx_ir

    found: dict[ir.Value, None] = {}
    for node in graph:
        table = node.inputs[0] if node.op_type == "Gather" else None
        if table is None or not table.is_initializer() or (only is not None and table.name not in only):
            continue
        if table.dtype == onnx_ir.DataType.FLOAT and len(table.shape) == 2:
            found[table] = None
    return list(found)


def _lookups(table: ir.Value) -> list[ir.Node]:
    return [node for node in table.consumers() if node.op_type == "Gather"]


def _tied_projections(table: ir.Value) -> list[tuple[ir.Node, ir.Node]]:
    """Pairs of the Transpose that reads the table and the MatMul that multiplies with it."""
    found = []
    for transpose in table.consumers():
        if transpose.op_type == "Transpose":
            turned = transpose.outputs[0]
            found += [(transpose, use.node) for use in turned.uses() if use.node.op_type == "MatMul" and use.idx == 1]
    return found


def _look_up(tape: ir.tape.Tape, gather: ir.Node, rows: ir.Value, scales: ir.Value) -> ir.Value:
    """Rows looked up in INT8, each times its scale."""
    import onnx_ir

    ids, at = gather.inputs[1], gather.outputs[0].name
    integers = record(tape, "Gather", [rows, ids], f"{at}_int8", name=f"{gather.name}_int8")
    cast = record(tape, "Cast", [integers], f"{at}_cast", to=onnx_ir.DataType.FLOAT)
    scale = record(tape, "Gather", [scales, ids], f"{at}_scale", name=f"{gather.name}_scale")
    axis = record(tape, "Constant", [], f"{at}_axis", value_ints=[-1])
    column = record(tape, "Unsqueeze", [scale, axis], f"{at}_column")
    return record(tape, "Mul", [cast, column], at)
