"""What FP16 needs done to a graph: names, what fused attention hides made visible, and casts joined."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from optimize.graphs.onnx import add_weight, record
from optimize.runtimes.half import FLOAT, FLOAT16

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir


def name_nodes(model: ir.Model) -> None:
    """Give every node a name of its own, in place: the converter knows nodes by their names."""
    seen: set[str] = set()
    for index, node in enumerate(model.graph):
        if not node.name or node.name in seen:
            node.name = f"{node.op_type}_{index}"
        seen.add(node.name)


@dataclass(frozen=True)
class Exposed:
    """A graph with what attention hides beside it, and the output of the node that hides each."""

    model: ir.Model
    owners: Mapping[str, str]


def expose_attention(model: ir.Model) -> Exposed:
    """A copy in which each fused Attention's projections, and the products of queries and keys, are tensors too."""
    copy = model.clone()
    owners: dict[str, str] = {}
    for node in tuple(copy.graph):
        if node.op_type == "Attention" and node.domain == "com.microsoft":
            qkv, scores = _beside(node)
            owners |= {qkv.name: node.outputs[0].name, scores.name: node.outputs[0].name}
    return Exposed(copy, owners)


def _beside(attention: ir.Node) -> tuple[ir.Value, ir.Value]:
    """Compute once more, beside a fused Attention, its projections [B, T, Q+K+V] and scaled scores [B, H, T, T]."""
    import onnx_ir
    from onnx_ir.tape import Tape

    graph, at, given = attention.graph, f"{attention.name}_exposed", attention.attributes
    x, weight, bias = attention.inputs[:3]
    heads = given.get_int("num_heads")
    # Queries, keys and values are as wide as one another unless the layer was pruned.
    sizes = given.get_ints("qkv_hidden_sizes") or [weight.shape[-1] // 3] * 3
    scale = given.get_float("scale", 0.0) or 1.0 / math.sqrt(sizes[0] / heads)
    split = add_weight(graph, f"{at}_sizes", list(sizes))
    shape = add_weight(graph, f"{at}_shape", [0, 0, heads, -1])
    factor = add_weight(graph, f"{at}_scale", np.float32(scale))
    tape = Tape(graph)
    products = record(tape, "MatMul", [x, weight], f"{at}_products")
    qkv = record(tape, "Add", [products, bias], f"{at}_qkv")
    parts = [onnx_ir.val(f"{at}_{part}") for part in "qkv"]
    queries, keys, _ = tape.op_multi_out("Split", [qkv, split], {"axis": 2}, outputs=parts, name="")
    queries = record(tape, "Reshape", [queries, shape], f"{at}_queries")
    keys = record(tape, "Reshape", [keys, shape], f"{at}_keys")
    rows = record(tape, "Transpose", [queries], f"{at}_rows", perm=[0, 2, 1, 3])
    columns = record(tape, "Transpose", [keys], f"{at}_columns", perm=[0, 2, 3, 1])
    unscaled = record(tape, "MatMul", [rows, columns], f"{at}_unscaled")
    return qkv, record(tape, "Mul", [unscaled, factor], f"{at}_scores")


def join_casts(converted: onnx.ModelProto) -> ir.Model:
    """A converted graph in which FP32 nodes read from one another without a cast to FP16 in between.

    The converter casts the result of every node that stays in FP32 to FP16, and back for the next that does: what is
    too large for FP16 would be infinite after all.
    """
    import onnx_ir
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    _drop_repeats(converted)
    # They state FP32 where FP16 is now.
    del converted.graph.value_info[:]
    model = onnx_ir.from_proto(converted)
    for node in model.graph:
        narrowed = node.inputs[0].producer() if _casts(node, FLOAT) else None
        if narrowed is None or not _casts(narrowed, FLOAT16):
            continue
        for reader, place in node.outputs[0].uses():
            reader.replace_input_with(place, narrowed.inputs[0])
    # The converter puts its casts behind all other nodes.
    model.graph.sort()
    RemoveUnusedNodesPass()(model)
    return model


def _drop_repeats(converted: onnx.ModelProto) -> None:
    """Keep one of equal casts, in place.

    onnxruntime 1.31.1 writes one for each FP32 node that reads a tensor, all under one name, which onnx_ir refuses.
    """
    seen: set[str] = set()
    kept = []
    for node in converted.graph.node:
        if not seen & set(node.output):
            kept.append(node)
        seen.update(node.output)
    del converted.graph.node[:]
    converted.graph.node.extend(kept)


def _casts(node: ir.Node, kind: int) -> bool:
    return node.op_type == "Cast" and bool(node.attributes.get_int("to") == kind)
