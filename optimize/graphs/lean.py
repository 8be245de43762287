"""A graph that leaves ONNX Runtime's CPU provider less to do; what it computes stays the same.

The attention was made lean before tracing (`graphs.forwards`). Here: ONNX Runtime 1.31.1 fuses a residual sum and its
LayerNormalization into SkipLayerNormalization, which on CPUs takes several times as long as the two (190 and 25 us at
128x768, 2 cores). It does so where it can prove both summands to have one shape; a reshape to [0, -1, D] in between
takes the proof away, and costs nothing. Measured in INT8: 10 % faster for 1x128 tokens at 768 wide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from optimize.graphs.onnx import add_weight

if TYPE_CHECKING:
    import onnx_ir as ir


def part_residual_sums(model: ir.Model) -> int:
    """Put a reshape that changes nothing before each residual sum that a LayerNormalization follows; how many."""
    import onnx_ir

    graph, parted = model.graph, 0
    for norm in graph:
        total = norm.inputs[0].producer() if norm.op_type == "LayerNormalization" else None
        if total is None or total.op_type != "Add" or not norm.inputs[1].is_initializer():
            continue
        branch = _linear_branch(total)
        if branch is None:
            continue
        summand = total.inputs[branch]
        shape = add_weight(graph, f"{summand.name}_shape", [0, -1, *norm.inputs[1].shape])
        reshape = onnx_ir.node(
            "Reshape",
            [summand, shape],
            outputs=[onnx_ir.val(f"{summand.name}_parted")],
            name=f"{total.name}_part",
        )
        graph.insert_before(total, reshape)
        total.replace_input_with(branch, reshape.outputs[0])
        parted += 1
    return parted


def _linear_branch(total: ir.Node) -> int | None:
    """Which summand adds the bias of a linear layer: the other one is the residual."""
    for place, summand in enumerate(total.inputs):
        maker = summand.producer()
        if maker is not None and maker.op_type == "Add" and ("/out_lin/" in maker.name or "/lin2/" in maker.name):
            return place
    return None
