"""FP16 on a CPU: what a GPU would overflow on overflows here, whatever ONNX Runtime optimizes."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from optimize.heads import HEADS
from optimize.runtimes.half import holds_half, open_rounded, round_in_float

HEAD = HEADS["feature-extraction"]


def graph(weights, middle="Relu"):
    """ids -> FP16 -> MatMul -> an operator without an FP16 kernel for CPUs -> MatMul -> FP32."""
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("MatMul", ["half", "first"], ["a"]),
        helper.make_node(middle, ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "second"], ["c"]),
        helper.make_node("Cast", ["c"], ["last_hidden_state"], to=TensorProto.FLOAT),
    ]
    inputs = [helper.make_tensor_value_info("input_ids", TensorProto.INT64, [1, 2])]
    outputs = [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, [1, 2])]
    tensors = [
        numpy_helper.from_array(np.array(each, dtype=np.float16), name)
        for name, each in zip(("first", "second"), weights, strict=True)
    ]
    made = helper.make_graph(nodes, "half", inputs, outputs, tensors)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


LOUD = ([[200.0, 0.0], [0.0, 200.0]], [[1e-3, 0.0], [0.0, 1e-3]])
EXACT = ([[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]])


@pytest.fixture
def folder(tmp_path):
    def write(model):
        onnx.save(model, tmp_path / "model.onnx")
        return tmp_path

    return write


def run(session, *ids):
    return session({"input_ids": np.array([ids], dtype=np.int64)})["last_hidden_state"][0].tolist()


@pytest.mark.parametrize("middle", ["Relu", "Abs", "Erf"])
def test_what_overflows_in_fp16_overflows_here(middle, folder):
    session = open_rounded(folder(graph(LOUD, "Relu" if middle == "Erf" else middle)), 1, HEAD)
    assert run(session, 1000, 1)[0] == np.inf  # 200,000 is beyond FP16
    assert run(session, 300, 1) == pytest.approx([60.0, 0.2], rel=1e-2)


def test_workaround_onnxruntime_alone_hides_the_overflow(folder):
    """Once this fails, the CPU provider rounds by itself, and optimize/runtimes/half.py is not needed."""
    path = folder(graph(LOUD)) / "model.onnx"
    plain = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert np.isfinite(plain.run(None, {"input_ids": np.array([[1000, 1]], dtype=np.int64)})[0]).all()


def test_numbers_are_rounded_to_fp16_between_nodes(folder):
    session = open_rounded(folder(graph(EXACT)), 1, HEAD)
    assert run(session, 2049, 2051) == [2048.0, 2052.0]  # FP16 counts in twos there


def test_a_graph_without_fp16_is_opened_as_it_is(context, apply):
    here = context("text-classification")
    exported = apply(here, "export")
    assert not holds_half(exported.graph())
    assert round_changes(exported.graph()) == 0


def round_changes(model):
    before = len(model.graph)
    round_in_float(model)
    return len(model.graph) - before
