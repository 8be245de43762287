"""The integer product takes the place of dequantize-multiply-add, computes the same, and leaves near misses alone."""

import numpy as np
import onnx_ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_ir.passes.common import RemoveUnusedNodesPass

from optimize.graphs.onnx import to_proto
from optimize.quantization.integer_operators import to_integer_operators

K, N = 32, 8
RNG = np.random.default_rng(0)
# Weights keep to half of their range, as the stage keeps them where sums are 16 bits wide (AVX2 without VNNI):
# 2 × 255 × 63 fits, 2 × 255 × 127 does not, and these graphs are compared number by number.
CONSTANTS = {
    "scale": np.float32(0.02),
    "zero": np.uint8(121),
    "weight": RNG.integers(-63, 64, (K, N)).astype(np.int8),
    "table": RNG.integers(-63, 64, (N, K)).astype(np.int8),
    "weight_scale": RNG.uniform(0.001, 0.01, N).astype(np.float32),
    "weight_zero": np.zeros(N, np.int8),
    "single_scale": np.float32(0.005),
    "single_zero": np.int8(0),
    "bias": RNG.normal(0, 1, N).astype(np.float32),
    "rows": RNG.normal(0, 1, (5, N)).astype(np.float32),
}


def node(kind, inputs, output, **attributes):
    return helper.make_node(kind, inputs.split(), [output], name=f"/{output}/{kind}", **attributes)


QUANTIZE = [
    node("QuantizeLinear", "x scale zero", "x_q"),
    node("DequantizeLinear", "x_q scale zero", "x_d"),
    node("DequantizeLinear", "weight weight_scale weight_zero", "w_d", axis=1),
]
PRODUCT = [*QUANTIZE, node("MatMul", "x_d w_d", "product")]
SINGLE = [*QUANTIZE[:2], node("DequantizeLinear", "weight single_scale single_zero", "w_d")]
TIED = [*QUANTIZE[:2], node("Transpose", "table", "turned", perm=[1, 0])]
FIRES = {
    "bias before": [*PRODUCT, node("Add", "bias product", "y")],
    "bias behind": [*PRODUCT, node("Add", "product bias", "y")],
    "no bias": [*QUANTIZE, node("MatMul", "x_d w_d", "y")],
    "one scale": [*SINGLE, node("MatMul", "x_d w_d", "product"), node("Add", "product bias", "y")],
    "tied": [*TIED, node("DequantizeLinear", "turned weight_scale", "w_d", axis=1), node("MatMul", "x_d w_d", "y")],
}
KEEPS_ADD = {
    "the sum with another tensor": [*PRODUCT, node("Add", "product rows", "y")],
    "a bias beside another reader": [*PRODUCT, node("Add", "product bias", "sum"), node("Mul", "sum product", "y")],
    "what is added to itself": [*PRODUCT, node("Add", "product product", "y")],
}
FLOAT_WEIGHT = [*QUANTIZE[:2], node("Transpose", "rows", "turned"), node("MatMul", "turned x_d", "y")]
ACTIVATIONS = [*QUANTIZE[:2], node("Transpose", "x_q", "t_q"), node("DequantizeLinear", "t_q scale zero", "t_d")]
KEEPS_PRODUCT = {
    "a float side": FLOAT_WEIGHT,
    "two activations": [*ACTIVATIONS, node("MatMul", "x_d t_d", "y")],
}


def model_of(nodes):
    used = {name for each in nodes for name in each.input}
    weights = [numpy_helper.from_array(np.asarray(array), name) for name, array in CONSTANTS.items() if name in used]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [5, K])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "product", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnx_ir.from_proto(model)


def run(model, x):
    """What the graph computes as it stands, without ONNX Runtime's own replacements."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(to_proto(model).SerializeToString(), options).run(None, {"x": x})[0]


def operators(model):
    return [each.op_type for each in model.graph]


@pytest.mark.parametrize("nodes", FIRES.values(), ids=FIRES)
def test_a_product_with_a_weight_becomes_one_integer_operator(nodes):
    model, x = model_of(nodes), np.random.default_rng(1).normal(0, 1, (5, K)).astype(np.float32)
    expected = run(model, x)
    to_integer_operators(model)
    RemoveUnusedNodesPass()(model)
    assert [kind for kind in operators(model) if kind != "Transpose"] == ["QuantizeLinear", "MatMulIntegerToFloat"]
    assert run(model, x) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("nodes", KEEPS_ADD.values(), ids=KEEPS_ADD)
def test_what_is_no_bias_of_the_product_alone_stays_an_addition(nodes):
    model, x = model_of(nodes), np.random.default_rng(1).normal(0, 1, (5, K)).astype(np.float32)
    expected = run(model, x)
    to_integer_operators(model)
    RemoveUnusedNodesPass()(model)
    assert operators(model).count("Add") == operators(model).count("MatMulIntegerToFloat") == 1
    assert run(model, x) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("nodes", KEEPS_PRODUCT.values(), ids=KEEPS_PRODUCT)
def test_a_product_without_an_int8_weight_stays_as_it_is(nodes):
    model = model_of(nodes)
    before = operators(model)
    to_integer_operators(model)
    assert operators(model) == before


def test_a_product_that_is_an_output_itself_keeps_its_bias_outside():
    model, x = model_of(FIRES["bias behind"]), np.random.default_rng(1).normal(0, 1, (5, K)).astype(np.float32)
    product = next(each.outputs[0] for each in model.graph if each.op_type == "MatMul")
    product.dtype = onnx_ir.DataType.FLOAT
    model.graph.outputs.append(product)
    expected = run(model, x)
    to_integer_operators(model)
    assert operators(model).count("Add") == 1
    assert run(model, x) == pytest.approx(expected, abs=1e-5)
