"""What FP16 needs done to a graph: names, what fused attention hides made visible, and casts joined."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optimize.runtimes.half import FLOAT, FLOAT16


def name_nodes(model: Any) -> None:
    """Give every node a name of its own, in place: the converter knows nodes by their names."""
    seen: set[str] = set()
    for index, node in enumerate(model.graph.node):
        if not node.name or node.name in seen:
            node.name = f"{node.op_type}_{index}"
        seen.add(node.name)


@dataclass(frozen=True)
class Exposed:
    """A graph with what attention hides beside it, and the output of the node that hides each."""

    model: Any
    owners: Mapping[str, str]


def expose_attention(model: Any) -> Exposed:
    """A copy in which each fused Attention's projections, and the products of queries and keys, are tensors too."""
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    widths = {tensor.name: int(tensor.dims[-1]) for tensor in copy.graph.initializer if tensor.dims}
    owners: dict[str, str] = {}
    for node in [node for node in model.graph.node if node.op_type == "Attention" and node.domain == "com.microsoft"]:
        attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        heads, at = int(attributes["num_heads"]), f"{node.name}_exposed"
        third = widths[node.input[1]] // 3
        sizes = [int(size) for size in attributes.get("qkv_hidden_sizes", (third, third, third))]
        scale = float(attributes.get("scale", 0.0)) or 1.0 / math.sqrt(sizes[0] / heads)
        copy.graph.initializer.extend(
            [
                numpy_helper.from_array(np.array(sizes, dtype=np.int64), f"{at}_sizes"),
                numpy_helper.from_array(np.array([0, 0, heads, -1], dtype=np.int64), f"{at}_shape"),
                numpy_helper.from_array(np.array(scale, dtype=np.float32), f"{at}_scale"),
            ]
        )
        copy.graph.node.extend(
            [
                helper.make_node("MatMul", [node.input[0], node.input[1]], [f"{at}_products"]),
                helper.make_node("Add", [f"{at}_products", node.input[2]], [f"{at}_qkv"]),
                helper.make_node("Split", [f"{at}_qkv", f"{at}_sizes"], [f"{at}_q", f"{at}_k", f"{at}_v"], axis=2),
                helper.make_node("Reshape", [f"{at}_q", f"{at}_shape"], [f"{at}_queries"]),
                helper.make_node("Reshape", [f"{at}_k", f"{at}_shape"], [f"{at}_keys"]),
                helper.make_node("Transpose", [f"{at}_queries"], [f"{at}_rows"], perm=[0, 2, 1, 3]),
                helper.make_node("Transpose", [f"{at}_keys"], [f"{at}_columns"], perm=[0, 2, 3, 1]),
                helper.make_node("MatMul", [f"{at}_rows", f"{at}_columns"], [f"{at}_unscaled"]),
                helper.make_node("Mul", [f"{at}_unscaled", f"{at}_scale"], [f"{at}_scores"]),
            ]
        )
        owners |= {f"{at}_qkv": node.output[0], f"{at}_scores": node.output[0]}
    return Exposed(copy, owners)


def join_casts(model: Any) -> None:
    """Let FP32 nodes read from one another without a cast to FP16 in between, and nodes share casts, in place.

    The converter casts the result of every node that stays in FP32 to FP16, and back for the next that does: what is
    too large for FP16 would be infinite after all. It also writes the same cast once for each node that reads it.
    """
    graph = model.graph
    casts = {node.output[0]: node for node in graph.node if node.op_type == "Cast"}
    wide = {
        name: casts[node.input[0]].input[0]
        for name, node in casts.items()
        if _to(node) == FLOAT and node.input[0] in casts and _to(casts[node.input[0]]) == FLOAT16
    }
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = wide.get(name, name)
    read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    kept = [node for node in graph.node if node.op_type != "Cast" or casts[node.output[0]] is node]
    kept = [node for node in kept if node.op_type != "Cast" or node.output[0] in read]
    del graph.node[:]
    graph.node.extend(kept)


def _to(cast: Any) -> int:
    return int(next(each.i for each in cast.attribute if each.name == "to"))
