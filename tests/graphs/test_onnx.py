"""ONNX graphs: what counts as a weight, nodes put in the place of others, and what a protobuf is told."""

import gc
import weakref

import numpy as np
import onnx_ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_ir.tape import Tape

from optimize.errors import StageError
from optimize.graphs.onnx import (
    add_weight,
    count_float_products,
    record,
    refuse_quantized,
    replace,
    to_proto,
    weight_behind,
)


@pytest.fixture
def model():
    """x times a weight, the result times the transpose of another, and that times its own transpose."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["hidden"], name="first"),
        helper.make_node("Transpose", ["v"], ["turned"], name="turn", perm=[1, 0]),
        helper.make_node("MatMul", ["hidden", "turned"], ["y"], name="second"),
        helper.make_node("Transpose", ["y"], ["columns"], name="other", perm=[1, 0]),
        helper.make_node("MatMul", ["y", "columns"], ["z"], name="third"),
    ]
    infos = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in ("x", "hidden", "z")}
    weights = [numpy_helper.from_array(np.eye(4, dtype=np.float32), name) for name in "wv"]
    graph = helper.make_graph(nodes, "g", [infos["x"]], [infos["z"]], weights, value_info=[infos["hidden"]])
    return onnx_ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def test_a_transposed_initializer_is_a_weight_too_and_a_transposed_result_is_none(model):
    products = [model.graph.node(name) for name in ("first", "second", "third")]
    assert [getattr(weight_behind(node.inputs[1]), "name", None) for node in products] == ["w", "v", None]
    assert weight_behind(None) is None
    assert count_float_products(model.graph) == 2


def test_recorded_nodes_take_the_place_of_others_under_the_old_name(model):
    graph, tape = model.graph, Tape()
    old = [graph.node("turn"), graph.node("second")]
    flat = record(tape, "MatMul", [old[1].inputs[0], add_weight(graph, "u", np.eye(4))], "flat")
    replace(old, tape, record(tape, "Relu", [flat], "new", name="relu"))
    assert [node.op_type for node in graph] == ["MatMul", "MatMul", "Relu", "Transpose", "MatMul"]
    assert graph.node("relu").outputs[0].name == "y"
    assert graph.node("third").inputs[0] is graph.node("relu").outputs[0]


def test_an_output_of_the_graph_that_is_replaced_stays_one(model):
    tape, last = Tape(), model.graph.node("third")
    replace([last], tape, record(tape, "Relu", [last.inputs[0]], "new"))
    assert [value.name for value in to_proto(model).graph.output] == ["z"]


def test_a_protobuf_keeps_the_shapes_noted_between_nodes_and_none_of_weights(model):
    assert [info.name for info in to_proto(model).graph.value_info] == ["hidden"]


def test_a_model_that_was_dropped_does_not_keep_its_weights(model):
    gc.disable()
    try:
        dropped = weakref.ref(model.clone().graph.node("first"))
        to_proto(model)
        assert dropped() is None
    finally:
        gc.enable()


def test_a_quantized_graph_is_refused_by_its_operators(model):
    refuse_quantized(model, stage="fuse")
    tape, last = Tape(), model.graph.node("third")
    replace([last], tape, record(tape, "DequantizeLinear", [last.inputs[0]], "new"))
    with pytest.raises(StageError, match=r"^fuse: the model is quantized already \(DequantizeLinear\); start from"):
        refuse_quantized(model, stage="fuse")
