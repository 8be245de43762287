"""Embedding tables in INT8 or in 4 bits; one table even where a projection is tied to it.

In INT8 each row has a scale: a word's vector is then off by at most 1/254 of its own largest entry, whatever other
words look like. In 4 bits each group of a row has one. Where the masked-LM projection is tied to the embedding, both
read the one table, always in INT8: a row's scale is also its output channel's scale.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Literal

import numpy as np

from optimize.graphs.onnx import add_weight, record, replace
from optimize.interfaces import Facts
from optimize.quantization.weights import Array, channel_scales, quantize

if TYPE_CHECKING:
    import onnx_ir as ir

Project = Callable[["ir.tape.Tape", "ir.Node", "ir.Value", "ir.Value"], "ir.Value"]
"""Record nodes that multiply what a MatMul reads with an INT8 table, given its rows and their scales; their result."""
TableBits = Literal[4, 8]
GROUP = 32
"""Values of a row that share a scale in 4 bits."""
MIDDLE, LEAST, MOST = 8, -8, 7
"""What stands for zero where 4 bits have no sign, and the ends of what they hold."""
SHARES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75)
"""Of a group's largest value: what is tried for the end of its range. Cutting one value off may serve the rest."""


def quantize_tables(
    model: ir.Model,
    *,
    reduce_range: bool,
    project: Project,
    only: Collection[str] | None = None,
    bits: TableBits = 8,
) -> Facts:
    """Give each embedding table, or those of `only`, one copy of so many bits a value, in place.

    A table is a 2-D float initializer that a Gather looks up. Only one that a projection multiplies with needs to
    `reduce_range`, so that its sums cannot overflow; a look-up never sums. 4 bits are for tables that are only looked
    up and whose rows are whole groups; others have 8.
    """
    from onnx_ir.tape import Tape

    graph, tied, packed = model.graph, 0, 0
    tables = _tables(graph, only)
    for table in tables:
        lookups, projections = _lookups(table), _tied_projections(table)
        if bits == 4 and not projections and table.shape[1] % GROUP == 0:
            _pack(graph, table, lookups)
            packed += 1
            continue
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
    facts: Facts = {"quantized_tables": len(tables), "tied_projections": tied}
    return {**facts, "tables_of_4_bits": packed} if bits == 4 else facts


def quantize_rows(table: Array, *, reduce_range: bool) -> tuple[Array, Array]:
    """Symmetric INT8 rows [R, D] and their float32 scales [R]; a row of zeros has scale 1."""
    scales = channel_scales(table.T, per_channel=True, reduce_range=reduce_range)
    return np.ascontiguousarray(quantize(table.T, scales).T), scales


def quantize_groups(table: Array) -> tuple[Array, Array]:
    """A table [R, D] in 4 bits: two values a byte [R, D / 2], the first in the low half; FP16 scales [R, D / GROUP].

    A scale's sign is such that the group's largest value, whatever its sign, comes to the end that reaches further.
    """
    groups = table.reshape(len(table), -1, GROUP).astype(np.float32)
    place = np.abs(groups).argmax(axis=-1)[..., None]
    extreme = np.take_along_axis(groups, place, axis=-1)
    best = np.full(extreme.shape, np.inf, dtype=np.float32)
    integers, scales = np.zeros(groups.shape, dtype=np.int8), np.ones(extreme.shape, dtype=np.float16)
    for share in SHARES:
        tried = (share * extreme / LEAST).astype(np.float16)
        tried[tried == 0] = 1.0
        values = np.clip(np.rint(groups / tried.astype(np.float32)), LEAST, MOST)
        error = np.square(values * tried - groups).sum(axis=-1, keepdims=True)
        better = error < best
        best, scales = np.where(better, error, best), np.where(better, tried, scales)
        integers = np.where(better, values.astype(np.int8), integers)
    halves = (integers.reshape(len(table), -1, 2) + MIDDLE).astype(np.uint8)
    return halves[..., 0] | (halves[..., 1] << 4), scales[..., 0]


def _pack(graph: ir.Graph, table: ir.Value, lookups: list[ir.Node]) -> None:
    """Look a table up in 4 bits, by ONNX Runtime's own operator."""
    import onnx_ir
    from onnx_ir.tape import Tape

    integers, scales = quantize_groups(table.const_value.numpy())
    rows, steps = add_weight(graph, f"{table.name}_4bit", integers), add_weight(graph, f"{table.name}_scale", scales)
    how = {"bits": 4, "block_size": GROUP, "gather_axis": 0, "quantize_axis": 1}
    for gather in lookups:
        at, name, tape = gather.outputs[0].name, f"{gather.name}_4bit", Tape()
        inputs = [rows, gather.inputs[1], steps]
        half = record(tape, "GatherBlockQuantized", inputs, f"{at}_half", name=name, domain="com.microsoft", **how)
        replace([gather], tape, record(tape, "Cast", [half], at, to=onnx_ir.DataType.FLOAT))
    graph.opset_imports.setdefault("com.microsoft", 1)
    del graph.initializers[table.name]


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
