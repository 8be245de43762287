"""Embedding tables in INT8 and in 4 bits: scales, one table for look-up and projection, and others left alone."""

import numpy as np
import onnx_ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from optimize.graphs.onnx import record, to_proto
from optimize.quantization.tables import GROUP, quantize_groups, quantize_rows, quantize_tables
from optimize.quantization.weights import PAIR_LIMIT, worst_pairs

ROWS, WIDTH = 50, 32


@pytest.fixture
def model():
    """One table looked up twice and multiplied with, one only looked up, one of integers."""
    rng = np.random.default_rng(0)
    tables = {name: rng.normal(0, 0.05, (ROWS, WIDTH)).astype(np.float32) for name in ("words", "positions")}
    nodes = [
        helper.make_node("Gather", ["words", "ids"], ["word"], name="/words/Gather"),
        helper.make_node("Gather", ["words", "others"], ["other"], name="/words/Gather_1"),
        helper.make_node("Gather", ["positions", "ids"], ["position"], name="/positions/Gather"),
        helper.make_node("Gather", ["kinds", "ids"], ["kind"], name="/kinds/Gather"),
        helper.make_node("Sum", ["word", "other", "position"], ["hidden"]),
        helper.make_node("Transpose", ["words"], ["turned"], name="/projector/Transpose", perm=[1, 0]),
        helper.make_node("MatMul", ["hidden", "turned"], ["logits"], name="/projector/MatMul"),
    ]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["tokens"]) for name in ("ids", "others")]
    kinds = {"logits": TensorProto.FLOAT, "hidden": TensorProto.FLOAT, "kind": TensorProto.INT64}
    outputs = [helper.make_tensor_value_info(name, kind, None) for name, kind in kinds.items()]
    arrays = {**tables, "kinds": np.arange(2 * ROWS).reshape(ROWS, 2)}
    weights = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "tables", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnx_ir.from_proto(model)


def dequantized_projection(tape, product, rows, scales):
    """A projection in float, of what is left of the table."""
    at = product.outputs[0].name
    cast = record(tape, "Cast", [rows], f"{at}_cast", to=onnx_ir.DataType.FLOAT)
    turned = record(tape, "Transpose", [cast], f"{at}_turned", perm=[1, 0])
    weight = record(tape, "Mul", [turned, scales], f"{at}_weight")
    return record(tape, "MatMul", [product.inputs[0], weight], at, name=product.name)


def arrays_of(model):
    return {name: value.const_value.numpy() for name, value in model.graph.initializers.items()}


def run(model):
    session = onnxruntime.InferenceSession(to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    feed = {"ids": np.array([3, 0, 49]), "others": np.array([7, 7, 1])}
    return dict(zip(("logits", "hidden", "kind"), session.run(None, feed), strict=True))


def remaining(arrays, name):
    return arrays[name + "_quantized"].astype(np.float32) * arrays[name + "_scale"][:, None]


@pytest.mark.parametrize("reduce_range", [True, False])
@pytest.mark.parametrize("spread", [1e-6, 0.05, 1e4])
def test_rows_are_off_by_half_a_step_at_most_and_stay_within_the_limit(reduce_range, spread):
    table = np.random.default_rng(0).normal(0, spread, (ROWS, WIDTH)).astype(np.float32)
    rows, scales = quantize_rows(table, reduce_range=reduce_range)
    error = np.abs(rows * scales[:, None].astype(np.float64) - table)
    assert (error <= 0.5001 * scales[:, None]).all()
    assert (np.abs(rows.astype(int)).max(axis=1) == 127).all() == (not reduce_range)
    assert (worst_pairs(rows.T) <= PAIR_LIMIT).all() == reduce_range
    assert (rows.dtype, scales.dtype, scales.shape) == (np.int8, np.float32, (ROWS,))


@pytest.mark.parametrize("reduce_range", [True, False])
def test_an_outlier_in_one_row_costs_the_others_nothing(reduce_range):
    table = np.random.default_rng(0).normal(0, 0.05, (4, WIDTH)).astype(np.float32)
    alone, _ = quantize_rows(table[1:], reduce_range=reduce_range)
    table[0, 0] = 1e6
    assert np.array_equal(quantize_rows(table, reduce_range=reduce_range)[0][1:], alone)


@pytest.mark.parametrize("reduce_range", [True, False])
@pytest.mark.parametrize("value", [0.0, 1e-45, 2.6e-43])
def test_rows_of_nothing_or_next_to_nothing_stay_finite_and_small(value, reduce_range):
    rows, scales = quantize_rows(np.full((2, 4), value, dtype=np.float32), reduce_range=reduce_range)
    restored = rows * scales[:, None]
    assert np.isfinite(restored).all()
    assert (scales > 0).all()
    assert (np.abs(restored - value) <= 1e-42).all()


def test_look_ups_and_the_projection_read_one_int8_table(model):
    before = arrays_of(model)
    facts = quantize_tables(model, reduce_range=False, project=dequantized_projection)
    after = arrays_of(model)
    assert facts == {"quantized_tables": 2, "tied_projections": 1}
    assert sorted(after) == ["kinds", "positions_quantized", "positions_scale", "words_quantized", "words_scale"]
    for name in ("words", "positions"):
        assert np.abs(remaining(after, name) - before[name]).max() <= 0.5001 * after[name + "_scale"].max()


def test_outputs_are_those_of_a_float_graph_with_what_is_left_of_the_tables(model):
    plain = model.clone()
    quantize_tables(model, reduce_range=True, project=dequantized_projection)
    for name in ("words", "positions"):
        plain.graph.initializers[name].const_value = onnx_ir.tensor(remaining(arrays_of(model), name))
    found, expected = run(model), run(plain)
    assert np.array_equal(found["hidden"], expected["hidden"])
    assert np.array_equal(found["kind"], expected["kind"])
    assert found["logits"] == pytest.approx(expected["logits"], abs=1e-6)


def test_only_a_table_that_is_multiplied_with_is_held_back(model):
    quantize_tables(model, reduce_range=True, project=dequantized_projection)
    words, positions = (arrays_of(model)[name + "_quantized"].T for name in ("words", "positions"))
    assert worst_pairs(words).max() <= PAIR_LIMIT < worst_pairs(positions).max()


@pytest.mark.parametrize(("only", "left"), [(["positions"], {"words"}), (["words"], {"positions"}), ([], None)])
def test_tables_that_are_not_named_stay_as_they_are(model, only, left):
    before = arrays_of(model)
    facts = quantize_tables(model, reduce_range=False, project=dequantized_projection, only=only)
    after = arrays_of(model)
    kept = {name for name in ("words", "positions") if name in after}
    assert kept == (left or {"words", "positions"})
    assert all(np.array_equal(after[name], before[name]) for name in kept)
    assert facts == {"quantized_tables": len(only), "tied_projections": int("words" in only)}


def unpacked(arrays, name):
    """What is left of a table in 4 bits: the low half of a byte comes first, and 8 stands for zero."""
    halves = arrays[f"{name}_4bit"]
    values = np.stack([halves & 15, halves >> 4], axis=-1).reshape(len(halves), -1).astype(np.float32) - 8
    return values * np.repeat(arrays[f"{name}_scale"].astype(np.float32), GROUP, axis=1)


def test_onnx_runtime_looks_a_table_up_in_four_bits(model):
    before = run(model)["hidden"]
    facts = quantize_tables(model, reduce_range=False, project=dequantized_projection, only=["positions"], bits=4)
    arrays, after = arrays_of(model), run(model)["hidden"]

    assert facts == {"quantized_tables": 1, "tied_projections": 0, "tables_of_4_bits": 1}
    assert "positions" not in arrays
    assert arrays["positions_4bit"].dtype == np.uint8
    assert arrays["positions_4bit"].shape == (ROWS, WIDTH // 2)
    expected = arrays["words"][[3, 0, 49]] + arrays["words"][[7, 7, 1]] + unpacked(arrays, "positions")[[3, 0, 49]]
    np.testing.assert_allclose(after, expected, rtol=0, atol=1e-4)
    assert 0 < np.abs(after - before).max() < 0.05


def test_a_table_that_answers_are_read_from_stays_in_eight_bits(model):
    facts = quantize_tables(model, reduce_range=False, project=dequantized_projection, bits=4)
    assert facts == {"quantized_tables": 2, "tied_projections": 1, "tables_of_4_bits": 1}
    assert {"words_quantized", "positions_4bit"} <= arrays_of(model).keys()


def test_four_bits_leave_a_gaussian_table_at_twenty_decibels():
    table = np.random.default_rng(1).normal(0, 0.05, (400, 384)).astype(np.float32)
    packed, scales = quantize_groups(table)
    left = unpacked({"t_4bit": packed, "t_scale": scales}, "t")
    assert 10 * np.log10(np.square(table).sum() / np.square(left - table).sum()) > 20.0


def test_four_bits_keep_zeros_and_both_ends():
    table = np.zeros((3, GROUP), dtype=np.float32)
    table[1, 5], table[2, 7] = 0.7, -0.7
    packed, scales = quantize_groups(table)
    np.testing.assert_allclose(unpacked({"t_4bit": packed, "t_scale": scales}, "t"), table, rtol=1e-3, atol=0)


def test_a_table_whose_rows_are_no_whole_groups_stays_in_eight_bits():
    rng = np.random.default_rng(0)
    weight = numpy_helper.from_array(rng.normal(0, 1, (9, GROUP + 2)).astype(np.float32), "narrow")
    node = helper.make_node("Gather", ["narrow", "ids"], ["hidden"], name="/narrow/Gather")
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["tokens"])
    hidden = helper.make_tensor_value_info("hidden", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "narrow", [ids], [hidden], [weight])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    narrow = onnx_ir.from_proto(proto)
    facts = quantize_tables(narrow, reduce_range=False, project=dequantized_projection, bits=4)
    assert facts == {"quantized_tables": 1, "tied_projections": 0, "tables_of_4_bits": 0}
