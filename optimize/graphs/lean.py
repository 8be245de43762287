"""A graph that leaves ONNX Runtime's CPU provider less to do; what it computes stays the same.

The attention was made lean before tracing (`graphs.forwards`). Here:

- Each reshape is told the batch size by four nodes. Here it copies the axis (0 in ONNX).
- ONNX Runtime 1.31.1 fuses a residual sum and its LayerNormalization into SkipLayerNormalization, which on
  CPUs takes several times as long as the two (190 and 25 us at 128x768, 2 cores). It does so where it can
  prove both summands to have one shape; a reshape to [0, -1, D] in between takes the proof away, and costs nothing.

Measured together in INT8: 19 to 20 % faster for 8x128 tokens at 384 wide, and 10 % for 1x128 at 768 wide from
the residual sums alone.
"""

from __future__ import annotations

from typing import Any


def copy_batch_axis(model: Any) -> int:
    """Let the attention's reshapes copy their first axis instead of being told it, in place; how many there were."""
    from onnx import numpy_helper

    graph = model.graph
    makers = {node.output[0]: node for node in graph.node}
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer if len(tensor.dims) <= 1}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    changed = 0
    for node in graph.node:
        shape = makers.get(node.input[1]) if node.op_type == "Reshape" and "/attention/" in node.name else None
        if shape is None or shape.op_type != "Concat" or not all(name in constants for name in shape.input[1:]):
            continue
        axes = [0, *(int(constants[name].reshape(-1)[0]) for name in shape.input[1:])]
        name = f"{node.name}_shape"
        graph.initializer.append(numpy_helper.from_array(_int64(axes), name))
        node.input[1] = name
        changed += 1
    return changed


def part_residual_sums(model: Any) -> int:
    """Put a reshape that changes nothing before each residual sum that a LayerNormalization follows; how many."""
    from onnx import helper, numpy_helper

    graph = model.graph
    makers = {node.output[0]: node for node in graph.node}
    widths = {tensor.name: tensor.dims[0] for tensor in graph.initializer if len(tensor.dims) == 1}
    norms = [node for node in graph.node if node.op_type == "LayerNormalization" and node.input[1] in widths]
    parted = 0
    for norm in norms:
        total = makers.get(norm.input[0])
        branch = (
            next((i for i, name in enumerate(total.input) if _is_linear(makers.get(name))), None) if total else None
        )
        if total is None or total.op_type != "Add" or branch is None:
            continue
        name = total.input[branch]
        shape = f"{name}_shape"
        graph.initializer.append(numpy_helper.from_array(_int64([0, -1, int(widths[norm.input[1]])]), shape))
        total.input[branch] = f"{name}_parted"
        reshape = helper.make_node("Reshape", [name, shape], [f"{name}_parted"], name=f"{total.name}_part")
        graph.node.insert(list(graph.node).index(total), reshape)
        parted += 1
    return parted


def _is_linear(node: Any) -> bool:
    """Whether a node adds the bias of a linear layer."""
    return node is not None and node.op_type == "Add" and ("/out_lin/" in node.name or "/lin2/" in node.name)


def _int64(values: list[int]) -> Any:
    import numpy as np

    return np.array(values, dtype=np.int64)
