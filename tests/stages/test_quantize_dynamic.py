"""Dynamic INT8: what is chosen for which CPU, tables with a scale per row, sums that cannot saturate."""

import dataclasses

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper
from pydantic import ValidationError

from optimize.errors import StageError
from optimize.heads import HEADS
from optimize.quantization.weights import worst_pairs
from optimize.stages.quantize_dynamic import Params, choose

NAMES = sorted(HEADS)
WORDS = "distilbert.embeddings.word_embeddings.weight"
POSITIONS = "distilbert.embeddings.position_embeddings.weight"
WIDEST_ACTIVATION = 255
INT16_MAX = 2**15 - 1


def integer_weights(built):
    """Names and values of the INT8 initializers that products with activations read, transposed ones included."""
    model, arrays = built.model(), built.weights()
    views = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Transpose"}
    read = [node.input[1] for node in model.graph.node if node.op_type in ("MatMulInteger", "QAttention")]
    return {views.get(name, name): arrays[views.get(name, name)].astype(int) for name in read}


def worst_sums(built):
    """The largest sum of two neighbouring products that each INT8 weight [K, N], or tied table [N, K], can give."""
    found = {}
    for name, array in integer_weights(built).items():
        tied = name.removesuffix("_quantized") in (WORDS, POSITIONS)
        found[name] = WIDEST_ACTIVATION * int(worst_pairs(array.T if tied else array).max())
    return found


def looked_up(model, output, feed):
    """The value of an inner output of the graph."""
    model.graph.output.append(helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run([output], feed)[0]


def with_reduced_range(context):
    return dataclasses.replace(context, cpu_features=("avx2",))


@pytest.mark.parametrize(
    ("features", "reduced", "reason"),
    [
        (("avx2", "avx512f", "avx512_vnni"), False, "avx512_vnni sums in 32 bits"),
        (("avx2", "avx_vnni"), False, "avx_vnni sums in 32 bits"),
        (("amx_int8", "avx512f"), False, "amx_int8 sums in 32 bits"),
        (("asimddp",), False, "asimddp sums in 32 bits"),
        (("avx2", "avx512f"), True, "no VNNI: 16-bit sums would saturate"),
        ((), True, "no VNNI: 16-bit sums would saturate"),
    ],
)
def test_the_range_is_reduced_exactly_where_sums_are_16_bits_wide(features, reduced, reason):
    chosen = choose(Params(), features)
    assert (chosen.reduce_range, chosen.reduce_range_because) == (reduced, reason)
    assert (chosen.weight_type, chosen.per_channel) == ("int8", True)


@pytest.mark.parametrize(("asked", "features"), [(True, ("avx512_vnni",)), (False, ())])
def test_what_is_asked_for_goes_before_what_the_cpu_has(asked, features):
    chosen = choose(Params(reduce_range=asked, weight_type="uint8", per_channel=False), features).facts()
    assert chosen == {
        "weight_type": "uint8",
        "per_channel": False,
        "reduce_range": asked,
        "reduce_range_because": "as asked for",
    }


@pytest.mark.parametrize("fuse", [False, True])
@pytest.mark.parametrize("head", NAMES)
def test_every_product_with_a_weight_is_quantized_in_every_head(head, fuse, context, apply):
    here = context(head)
    source = apply(here, "export")
    source = apply(here, "fuse", source, embedding=False) if fuse else source
    built = apply(here, "quantize_dynamic", source)
    operators, weights = built.operators(), set(built.weights())
    left = [
        node.name
        for node in built.model().graph.node
        if node.op_type in ("MatMul", "Gemm", "Attention") and set(node.input) & weights
    ]
    assert (left, built.facts["float_matmuls"]) == ([], 0)
    assert built.facts["quantized_matmuls"] == operators.count("MatMulInteger") + operators.count("QAttention") > 6


@pytest.mark.parametrize("head", NAMES)
def test_both_tables_become_int8_and_none_stays_in_float(head, context, apply):
    here = context(head)
    before, after = apply(here, "export"), apply(here, "quantize_dynamic", apply(here, "export"))
    arrays = after.weights()
    prefix = "distilbert." if head == "feature-extraction" else ""
    for name in (WORDS.removeprefix(prefix), POSITIONS.removeprefix(prefix)):
        table = before.weights()[name]
        assert name not in arrays
        assert (arrays[name + "_quantized"].dtype, arrays[name + "_quantized"].shape) == (np.int8, table.shape)
        assert arrays[name + "_scale"].shape == table.shape[:1]
    assert after.facts["quantized_tables"] == 2


def test_a_look_up_gives_exactly_the_dequantized_rows(context, apply, make_feed):
    here = context("text-classification")
    built, feed = apply(here, "quantize_dynamic", apply(here, "export")), make_feed(here)
    arrays = built.weights()
    table = arrays[WORDS + "_quantized"].astype(np.float32) * arrays[WORDS + "_scale"][:, None]
    output = "/distilbert/embeddings/word_embeddings/Gather_output_0"
    assert np.array_equal(looked_up(built.model(), output, feed), table[feed["input_ids"]])


@pytest.mark.parametrize("fuse", [False, True])
def test_a_tied_table_is_kept_once(fuse, context, apply):
    here = context("fill-mask")
    exported = apply(here, "export")
    source = apply(here, "fuse", exported, embedding=False) if fuse else exported
    built = apply(here, "quantize_dynamic", source)
    vocabulary, width = exported.weights()[WORDS].shape
    tables = {
        name: a.dtype for name, a in built.weights().items() if a.size >= vocabulary * width and vocabulary in a.shape
    }
    assert tables == {WORDS + "_quantized": np.int8}
    assert built.facts["tied_projections"] == 1
    assert built.artifact.model_bytes() < 0.32 * here.reference.model_bytes()


def test_an_untied_projection_is_quantized_as_a_layer_of_its_own(random_context, apply):
    here = random_context("fill-mask", tie_word_embeddings=False)
    built = apply(here, "quantize_dynamic", apply(here, "export"))
    tables = [array.dtype for array in built.weights().values() if sorted(array.shape) == [64, 203]]
    assert tables == [np.int8, np.int8]
    assert (built.facts["tied_projections"], built.facts["float_matmuls"]) == (0, 0)


def test_a_tied_table_is_held_back_where_sums_are_16_bits_wide_and_other_tables_are_not(context, apply):
    here = with_reduced_range(context("fill-mask"))
    arrays = apply(here, "quantize_dynamic", apply(here, "export")).weights()
    words, positions = (arrays[name + "_quantized"] for name in (WORDS, POSITIONS))
    assert worst_pairs(words.T).max() <= 128 < worst_pairs(positions.T).max()
    assert np.abs(words.astype(int)).max() > 64
    assert (np.abs(positions.astype(int)).max(axis=1) == 127).all()


@pytest.mark.parametrize("fuse", [False, True])
@pytest.mark.parametrize("head", NAMES)
def test_two_products_never_saturate_16_bits_when_the_range_is_reduced(head, fuse, context, apply):
    here = with_reduced_range(context(head))
    source = apply(here, "export")
    source = apply(here, "fuse", source, embedding=False) if fuse else source
    worst = worst_sums(apply(here, "quantize_dynamic", source))
    assert len(worst) >= 8
    assert INT16_MAX // 2 < max(worst.values()) <= INT16_MAX


def test_the_full_range_would_saturate_16_bits_so_reducing_it_is_not_idle(context, apply):
    here = dataclasses.replace(context("fill-mask"), cpu_features=("avx512_vnni",))
    worst = worst_sums(apply(here, "quantize_dynamic", apply(here, "export")))
    assert min(worst.values()) > INT16_MAX


@pytest.mark.parametrize("params", [{}, {"reduce_range": True}, {"weight_type": "uint8"}, {"per_channel": False}])
@pytest.mark.parametrize("head", NAMES)
def test_outputs_stay_close_to_fp32_and_are_not_equal(head, params, context, apply, make_feed, difference):
    here = context(head)
    exported = apply(here, "export")
    quantized = apply(here, "quantize_dynamic", exported, **params)
    feed = make_feed(here, "left-padded")
    scale = max(np.abs(array).max() for array in exported.open(here)(feed).values())
    assert 0 < difference(here, exported.open(here), quantized.open(here), feed) < 0.1 * max(scale, 1)


@pytest.mark.parametrize("head", ["text-classification", "fill-mask"])
def test_tables_stay_in_float_where_embedding_is_off(head, context, apply):
    here = context(head)
    exported = apply(here, "export")
    built = apply(here, "quantize_dynamic", exported, embedding=False)
    for name in (WORDS, POSITIONS):
        assert np.array_equal(built.weights()[name], exported.weights()[name])
    assert "quantized_tables" not in built.facts
    assert built.facts["float_matmuls"] == (1 if head == "fill-mask" else 0)


@pytest.mark.parametrize(("asked", "dtype"), [("int8", np.int8), ("uint8", np.uint8)])
def test_weights_have_the_type_that_was_asked_for(asked, dtype, context, apply):
    here = context("text-classification")
    built = apply(here, "quantize_dynamic", apply(here, "export"), weight_type=asked)
    arrays = built.weights()
    assert {arrays[name].dtype.type for name in integer_weights(built)} == {dtype}
    assert built.facts["weight_type"] == asked


@pytest.mark.parametrize("per_channel", [True, False])
def test_weights_have_a_scale_per_channel_or_one(per_channel, context, apply):
    here = context("token-classification")
    built = apply(here, "quantize_dynamic", apply(here, "export"), per_channel=per_channel)
    arrays = built.weights()
    scales = {name.removesuffix("_quantized") + "_scale": array for name, array in integer_weights(built).items()}
    expected = {name: (weight.shape[1] if per_channel else 1) for name, weight in scales.items()}
    assert {name: arrays[name].size for name in scales} == expected


def test_a_model_that_is_quantized_already_is_refused(context, apply):
    here = context("text-classification")
    quantized = apply(here, "quantize_dynamic", apply(here, "export"))
    with pytest.raises(
        StageError, match=r"^quantize_dynamic: the model is quantized already \(.+\); start from the FP32"
    ):
        apply(here, "quantize_dynamic", quantized)


def test_a_fused_embedding_is_refused_with_the_parameter_that_helps(context, apply):
    here = context("text-classification")
    fused = apply(here, "fuse", apply(here, "export"))
    with pytest.raises(StageError, match=r"look-ups are fused with their LayerNorm; set 'fuse: \{embedding: false\}'$"):
        apply(here, "quantize_dynamic", fused)
    assert apply(here, "quantize_dynamic", fused, embedding=False).facts["float_matmuls"] == 0


def test_a_graph_without_linear_layers_is_refused(context, apply, rewritten):
    here = context("text-classification")
    ids = helper.make_tensor_value_info("input_ids", onnx.TensorProto.FLOAT, ["batch", "tokens"])
    logits = helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["batch", "tokens"])
    graph = helper.make_graph([helper.make_node("Relu", ["input_ids"], ["logits"])], "idle", [ids], [logits])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(StageError, match=r"^quantize_dynamic: no linear layer was quantized; check the graph"):
        apply(here, "quantize_dynamic", rewritten(apply(here, "export"), model))


@pytest.mark.parametrize("params", [{"weight_type": "int4"}, {"reduce_range": "maybe"}, {"perchannel": True}])
def test_parameters_out_of_range_or_unknown_are_refused(params):
    with pytest.raises(ValidationError):
        Params(**params)
