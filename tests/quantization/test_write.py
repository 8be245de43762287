"""The INT8 graph: it computes what rounding by hand does; the residual stream and what is left out stay float."""

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_ir.convenience import get_const_tensor

from optimize.graphs.onnx import to_proto
from optimize.heads import HEADS
from optimize.quantization.calibrate import calibrate
from optimize.quantization.ranges import Range
from optimize.quantization.sites import find_sites, group_sites, normalise
from optimize.quantization.variants import opener
from optimize.quantization.weights import channel_scales, quantize
from optimize.quantization.write import (
    Scheme,
    activation_scale,
    build,
    quantize_sites,
    round_activations,
    round_weights,
)

NAMES = sorted(HEADS)
K, N = 48, 8
SCHEMES = [
    Scheme(),
    Scheme(reduce_range=False),
    Scheme("int8"),
    Scheme("uint8", symmetric=True),
    Scheme("int8", symmetric=True),
    Scheme(per_channel=False),
]


def levels(scheme):
    return (0, 255) if scheme.activation == "uint8" else (-128, 127)


def layer():
    """x [R, K] times W [K, N] plus b, and the residual that reads x as well."""
    rng = np.random.default_rng(0)
    weights = {"weight": rng.normal(0, 0.1, (K, N)), "bias": rng.normal(0, 1, N), "shift": rng.normal(0, 1, K)}
    nodes = [
        helper.make_node("Add", ["x", "shift"], ["hidden"], name="/shift/Add"),
        helper.make_node("MatMul", ["hidden", "weight"], ["product"], name="/lin/MatMul"),
        helper.make_node("Add", ["product", "bias"], ["y"], name="/lin/Add"),
        helper.make_node("Neg", ["hidden"], ["residual"], name="/residual/Neg"),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", K])]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("y", "residual")]
    constants = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "layer", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnx_ir.from_proto(model)


def arrays_of(model):
    return {name: value.const_value.numpy() for name, value in model.graph.initializers.items()}


@pytest.fixture
def prepare(apply):
    """A context's normalised graph, its groups and the ranges of what they read."""

    def make(here):
        model = normalise(apply(here, "export").graph())
        groups = group_sites(find_sites(model))
        reads = {site.reads for group in groups for site in group.sites if not site.looks_up}
        texts = here.calibration.features
        return model, groups, calibrate(to_proto(model), sorted(reads), texts, method="minmax", threads=1)

    return make


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("found", [Range(-1.0, 3.0), Range(-5.0, 0.0), Range(0.0, 0.25), Range(-0.17, 60.0)])
def test_a_scale_spans_the_range_and_zero_is_a_level(found, scheme):
    scale, zero = activation_scale(found, scheme)
    lowest, highest = levels(scheme)
    assert isinstance(zero, int)
    assert lowest <= zero <= highest
    reach = max(-found.low, found.high) if scheme.symmetric else None
    assert (lowest - zero) * scale <= (-reach if reach else found.low) + 0.501 * scale
    assert (highest - zero) * scale >= (reach or found.high) - 0.501 * scale
    assert not scheme.symmetric or zero == (128 if scheme.activation == "uint8" else 0)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_rounding_is_off_by_half_a_step_at_most(scheme):
    rows = np.random.default_rng(0).normal(0.5, 2, (40, K)).astype(np.float32)
    span = 2 * np.abs(rows).max() / 254 if scheme.symmetric else (rows.max() - rows.min()) / 255
    assert np.abs(round_activations(rows, scheme) - rows).max() <= 1.001 * span
    assert np.median(np.abs(round_activations(rows, scheme) - rows)) <= 0.5 * span
    weight = rows.T
    scales = channel_scales(weight, per_channel=scheme.per_channel, reduce_range=scheme.reduce_range)
    assert (np.abs(round_weights(weight, scheme) - weight) <= 0.5001 * scales).all()


@pytest.mark.parametrize("form", ["qdq", "qoperator"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_layer_computes_what_integers_by_hand_do(scheme, form):
    model, found = layer(), Range(-2.5, 4.0) if not scheme.symmetric else Range(-4.0, 4.0)
    arrays, x = arrays_of(model), np.random.default_rng(1).normal(0, 1.5, (5, K)).astype(np.float32)
    written = build(model, group_sites(find_sites(model)), {"hidden": found}, scheme, form)
    scale, zero = activation_scale(found, scheme)
    if not scheme.reduce_range and scheme.activation == "uint8":
        # On a CPU without VNNI two products are summed in 16 bits: 2 × 127 × 127 fits, 2 × 255 × 127 does not.
        x = np.minimum(x, np.float32(scale * (127 - zero)) - arrays["shift"])
    integers = np.clip(np.rint((x + arrays["shift"]) / scale) + zero, *levels(scheme)) - zero
    steps = channel_scales(arrays["weight"], per_channel=scheme.per_channel, reduce_range=scheme.reduce_range)
    product = integers.astype(np.int64) @ quantize(arrays["weight"], steps).astype(np.int64)
    session = onnxruntime.InferenceSession(to_proto(written).SerializeToString(), providers=["CPUExecutionProvider"])
    y, residual = session.run(None, {"x": x})
    assert y == pytest.approx(product * (scale * steps) + arrays["bias"], abs=1e-4)
    assert np.array_equal(residual, -(x + arrays["shift"]))


def test_the_graph_that_is_given_stays_as_it_is(context, prepare):
    model, groups, ranges = prepare(context("fill-mask"))
    before = to_proto(model).SerializeToString(deterministic=True)
    build(model, groups, ranges, Scheme(), "qoperator")
    assert to_proto(model).SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("head", NAMES)
def test_what_runtimes_fuse_moves_outputs_by_roundings_alone(head, context, prepare, make_feed, difference):
    here = context(head)
    written, feed = build(*prepare(here), Scheme(), "qdq"), make_feed(here, "right-padded")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    plain = onnxruntime.InferenceSession(to_proto(written).SerializeToString(), options)
    names = [value.name for value in plain.get_outputs()]
    expected = dict(zip(names, plain.run(None, feed), strict=True))
    scale = max(float(np.abs(array).max()) for array in expected.values())
    assert difference(here, opener(here)(written), lambda _: expected, feed) <= 0.02 * scale


@pytest.mark.parametrize("head", NAMES)
def test_qdq_has_standard_operators_alone_and_only_products_read_what_is_dequantized(head, context, prepare):
    written = build(*prepare(context(head)), Scheme(), "qdq")
    onnx.checker.check_model(to_proto(written))
    assert {node.domain for node in written.graph} == {""}
    assert set(written.opset_imports) == {""}
    dequantizers = [node for node in written.graph if node.op_type == "DequantizeLinear"]
    assert {reader.op_type for node in dequantizers for reader in node.outputs[0].consumers()} == {"MatMul"}


@pytest.mark.parametrize("form", ["qdq", "qoperator"])
@pytest.mark.parametrize("head", NAMES)
def test_residual_sums_and_norms_read_float_and_each_tensor_is_quantized_once(head, form, context, prepare):
    model, groups, ranges = prepare(context(head))
    written = build(model, groups, ranges, Scheme(), form)
    quantized = [node.inputs[0].name for node in written.graph if node.op_type == "QuantizeLinear"]
    assert sorted(quantized) == sorted(ranges)
    untouched = ("LayerNormalization", "Softmax", "Erf")
    for kind in untouched:
        before, after = (
            [[value.name for value in node.inputs] for node in each.graph if node.op_type == kind]
            for each in (model, written)
        )
        assert before == after


@pytest.mark.parametrize("scheme", [Scheme(), Scheme(reduce_range=False), Scheme(per_channel=False)])
def test_weights_are_written_as_they_were_rounded_when_scales_were_chosen(scheme, context, prepare):
    model, groups, ranges = prepare(context("text-classification"))
    arrays, written = arrays_of(model), arrays_of(build(model, groups, ranges, scheme, "qoperator"))
    for site in (site for group in groups for site in group.sites if not site.looks_up):
        weight = arrays[site.weight]
        scales = channel_scales(weight, per_channel=scheme.per_channel, reduce_range=scheme.reduce_range)
        assert np.array_equal(written[site.weight + "_quantized"], quantize(weight, scales))
        assert np.array_equal(written[site.weight + "_scale"], scales if scheme.per_channel else scales[0])


@pytest.mark.parametrize("head", ["fill-mask", "multiple-choice"])
def test_a_group_alone_is_quantized_and_all_others_keep_their_weights(head, context, prepare):
    model, groups, ranges = prepare(context(head))
    before = arrays_of(model)
    for group in groups:
        after = arrays_of(build(model, [group], ranges, Scheme(), "qoperator"))
        own = {site.weight for site in group.sites}
        others = {name for name, array in before.items() if array.ndim == 2} - own
        assert not own & set(after)
        assert all(np.array_equal(after[name], before[name]) for name in others)


@pytest.mark.parametrize("form", ["qdq", "qoperator"])
def test_a_tied_table_is_kept_once_and_no_other_matrix_is_float(form, context, prepare):
    model, groups, ranges = prepare(context("fill-mask"))
    written = arrays_of(build(model, groups, ranges, Scheme(), form))
    (table,) = (site.weight for group in groups for site in group.sites if site.tied)
    vocabulary = arrays_of(model)[table].shape[0]
    assert {name for name, array in written.items() if vocabulary in array.shape and array.ndim == 2} == {
        table + "_quantized"
    }
    positions = np.dtype(np.int64)
    assert {array.dtype for array in written.values() if array.ndim == 2} - {positions} == {np.dtype(np.int8)}


def test_no_group_at_all_gives_the_float_graph(context, prepare, make_feed, difference):
    here = context("question-answering")
    model, _, ranges = prepare(here)
    written = build(model, [], ranges, Scheme(), "qdq")
    assert difference(here, opener(here)(model), opener(here)(written), make_feed(here)) == 0.0


def test_a_neighbour_of_a_quantized_reader_reads_float():
    model = layer()
    (group,) = group_sites(find_sites(model))
    written = quantize_sites(model, group.sites, {"hidden": Range(-4.0, 4.0)}, Scheme())
    assert [value.name for value in written.graph.node("/residual/Neg").inputs] == ["hidden"]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_tied_projection_reads_activations_of_the_scheme(scheme, context, prepare, make_feed, difference):
    here = context("fill-mask")
    model, groups, ranges = prepare(here)
    (tied,) = (site for group in groups for site in group.sites if site.tied)
    written = build(model, [group for group in groups if tied in group.sites], ranges, scheme, "qoperator")
    (quantizer,) = (node for node in written.graph if node.op_type == "QuantizeLinear")
    step, zero = (get_const_tensor(value).numpy() for value in quantizer.inputs[1:])
    assert (step, int(zero)) == activation_scale(ranges[tied.reads], scheme)
    assert zero.dtype.name == scheme.activation
    scale = float(np.abs(opener(here)(model)(make_feed(here))["logits"]).max())
    assert difference(here, opener(here)(model), opener(here)(written), make_feed(here)) < 0.02 * scale
