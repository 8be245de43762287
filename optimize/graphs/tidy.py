"""A graph as a tracer writes it, made plain: what it computes stays the same.

PyTorch's tracer spells out every shape and writes each constant where it is used. Here constants are folded and shared,
reshapes copy their first axis instead of being told it, and the weight of a linear layer lies as the product reads it,
under its parameter's name. A weight that is read in several places, as where a projection is tied to the embedding,
stays one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from optimize.graphs.onnx import add_weight

if TYPE_CHECKING:
    import onnx_ir as ir


def tidy(model: ir.Model) -> None:
    """Fold, share and drop what a tracer repeats, in place."""
    from onnx_ir.passes import common
    from onnxscript.optimizer import fold_constants

    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    # Equal weights are given one initializer, read through Identity.
    common.IdentityEliminationPass()(model)
    lay_weights(model)
    fold_constants(model, should_fold=lambda node: False if node.op_type == "Transpose" else None)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    copy_batch_axis(model)
    common.DeduplicateInitializersPass(size_limit=SHARED_SIZE)(model)
    common.CommonSubexpressionEliminationPass()(model)
    common.RemoveUnusedNodesPass()(model)


SHARED_SIZE = 1024
"""Elements of the largest constants that are compared with each other."""


def lay_weights(model: ir.Model) -> int:
    """Transpose weights here that the graph transposes, where nothing else reads them, in place; how many."""

    laid = 0
    for node in list(model.graph):
        weight = node.inputs[0] if node.op_type == "Transpose" else None
        if weight is None or not weight.is_initializer() or len(weight.uses()) > 1:
            continue
        name, array = weight.name, weight.const_value.numpy().transpose(node.attributes.get_ints("perm"))
        result = node.outputs[0]
        model.graph.remove(node, safe=False)
        del model.graph.initializers[name]
        result.replace_all_uses_with(add_weight(model.graph, name, array))
        laid += 1
    return laid


def copy_batch_axis(model: ir.Model) -> int:
    """Let the attention's reshapes copy their first axis instead of being told it, in place; how many there were."""
    changed = 0
    for node in model.graph:
        if node.op_type != "Reshape" or "/attention/" not in node.name:
            continue
        axes = _axes_behind_batch(node.inputs[1])
        if axes is None:
            continue
        # 0 stands for "as it was" in a Reshape, unless an exporter says otherwise; only one axis may be inferred (-1).
        node.attributes.pop("allowzero", None)
        node.replace_input_with(1, add_weight(model.graph, f"{node.name}_shape", [0, *axes]))
        changed += 1
    return changed


def _axes_behind_batch(shape: ir.Value) -> list[int] | None:
    """The axes that a Concat puts behind the batch size, where all of them are constant."""
    from onnx_ir.convenience import get_const_tensor

    concat = shape.producer()
    if concat is None or concat.op_type != "Concat":
        return None
    axes = []
    for value in concat.inputs[1:]:
        tensor = get_const_tensor(value)
        if tensor is None:
            return None
        axes.append(int(tensor.numpy().reshape(-1)[0]))
    return axes
