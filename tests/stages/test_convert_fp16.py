"""FP16: what is converted, what stays in FP32 and why, and that answers stay the same under any mask."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper
from pydantic import ValidationError

from optimize.errors import StageError
from optimize.graphs.half import expose_attention, name_nodes
from optimize.graphs.onnx import to_proto
from optimize.heads import HEADS
from optimize.runtimes.onnx_runtime import tensor_types
from optimize.stages.convert_fp16 import Params

NAMES = sorted(HEADS)
MASKS = ["full", "right-padded", "left-padded", "holed"]
LOUD = 1e5


@pytest.fixture
def fused(context, apply):
    """A head's context and its fused graph, as the pipeline `cuda` has it."""

    def make(head, here=None):
        here = here or context(head)
        return here, apply(here, "fuse", apply(here, "export", readout_slice=False))

    return make


def loud(model):
    """Let the second layer's FFN write far beyond what FP16 holds well; its LayerNorm takes that back."""
    model.distilbert.transformer.layer[1].ffn.lin2.weight *= LOUD
    model.distilbert.transformer.layer[1].ffn.lin2.bias *= LOUD


@pytest.fixture
def loud_context(context, edited):
    return edited(context("token-classification"), loud)


def types_of(model):
    return {tensor.name: tensor.data_type for tensor in model.graph.initializer}


@pytest.mark.parametrize("head", NAMES)
def test_every_weight_is_halved_and_inputs_and_outputs_keep_their_types(head, fused, apply):
    here, source = fused(head)
    built = apply(here, "convert_fp16", source)
    model = built.model()
    assert TensorProto.FLOAT not in types_of(model).values()
    assert {value.type.tensor_type.elem_type for value in model.graph.input} == {TensorProto.INT64}
    assert {value.type.tensor_type.elem_type for value in model.graph.output} == {TensorProto.FLOAT}
    halved = sum(weight.nbytes for weight in source.weights().values() if weight.dtype == np.float32)
    rest = len(source.model().SerializeToString()) - halved
    assert (built.artifact.path / "model.onnx").stat().st_size <= 0.5 * halved + rest + 4096
    assert built.facts["fp32_nodes"] == 0
    assert built.facts["fp16_nodes"] >= source.operators().count("MatMul")


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("head", NAMES)
def test_answers_are_those_of_pytorch_whatever_the_mask(head, kind, fused, apply, make_feed, difference):
    here, source = fused(head)
    half = apply(here, "convert_fp16", source).open(here)
    assert 0 < difference(here, here.open("torch", here.reference.path), half, make_feed(here, kind)) < 1e-2


def test_a_tied_projection_stays_tied(fused, apply):
    here, source = fused("fill-mask")
    vocabulary = json.loads((here.reference.path / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    tables = [
        tensor for tensor in apply(here, "convert_fp16", source).model().graph.initializer if len(tensor.dims) == 2
    ]
    assert sum(vocabulary in tensor.dims for tensor in tables) == 1


def test_without_the_rule_large_activations_overflow(loud_context, fused, apply, monkeypatch):
    from optimize.stages import convert_fp16

    here, source = fused(None, loud_context)
    monkeypatch.setattr(convert_fp16, "choose", lambda *_: [])
    with pytest.raises(StageError, match=r"^convert_fp16: outputs differ from the source model's by nan"):
        apply(here, "convert_fp16", source)


def test_nodes_that_meet_large_activations_stay_in_fp32(loud_context, fused, apply, make_feed, difference):
    here, source = fused(None, loud_context)
    built = apply(here, "convert_fp16", source)
    kept = {row["node"]: row["peak"] for row in built.facts["kept_fp32"]}
    assert built.facts["fp32_nodes"] == len(kept) > 0
    assert any("layer.1/ffn/lin2" in name for name in kept)
    assert not any("layer.0" in name for name in kept)
    assert min(kept.values()) > 512
    assert built.facts["largest_activation"] == max(kept.values())
    weights = {node.name: node.input[1] for node in built.model().graph.node if node.op_type == "MatMul"}
    types = types_of(built.model())
    assert {types[weights[name]] for name in kept if name in weights} == {TensorProto.FLOAT}
    for kind in MASKS:
        half = built.open(here)
        assert difference(here, here.open("torch", here.reference.path), half, make_feed(here, kind)) < 1e-2


def test_nothing_is_cast_to_fp16_between_two_nodes_in_fp32(loud_context, fused, apply):
    here, source = fused(None, loud_context)
    model = apply(here, "convert_fp16", source).model()
    casts = {node.output[0]: node for node in model.graph.node if node.op_type == "Cast"}
    assert not [node.name for node in casts.values() if node.input[0] in casts and node.input[0] != "attention_mask"]
    assert len({(node.input[0], node.attribute[0].i) for node in casts.values()}) == len(casts)


def test_what_fused_attention_hides_is_looked_at(context, edited, fused, apply):
    """Queries and keys of some hundred each are no tensors of the fused graph, nor are their products."""

    def stretch(model):
        attention = model.distilbert.transformer.layer[0].attention
        attention.q_lin.weight *= 2000
        attention.q_lin.bias *= 2000

    here, source = fused(None, edited(context("token-classification"), stretch))
    built = apply(here, "convert_fp16", source, tolerance=1.0)
    kept = [row["node"] for row in built.facts["kept_fp32"]]
    operators = {node.name: node.op_type for node in built.model().graph.node}
    assert "Attention" in {operators[name] for name in kept}
    seen = onnxruntime.InferenceSession(with_all_outputs(source.model()), providers=["CPUExecutionProvider"])
    names = [node.name for node in seen.get_outputs()]
    feed = {name: array[None] for name, array in here.calibration.features[0].inputs.items()}
    values = dict(zip(names, seen.run(None, feed), strict=True))
    attention = next(node for node in source.model().graph.node if node.op_type == "Attention")
    assert np.abs(values[attention.output[0]]).max() < 512


def with_all_outputs(model):
    present = {value.name for value in model.graph.output}
    types = tensor_types(model)
    model.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in types if types[name] == TensorProto.FLOAT and name not in present
    )
    return model.SerializeToString()


def test_the_exposed_products_are_those_of_attention(fused, make_feed):
    """Softmax over the exposed scores, times the values, is what the fused operator gives."""
    here, source = fused("token-classification")
    model = source.graph()
    name_nodes(model)
    exposed = expose_attention(model)
    attention = next(node.outputs[0].name for node in model.graph if node.op_type == "Attention")
    scores, qkv = [name for name, owner in exposed.owners.items() if owner == attention][::-1]
    shown = to_proto(exposed.model)
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in (scores, qkv, attention))
    session = onnxruntime.InferenceSession(shown.SerializeToString(), providers=["CPUExecutionProvider"])
    scored, projected, expected = session.run([scores, qkv, attention], make_feed(here, batch=1))
    heads = scored.shape[1]
    values = projected[..., 2 * expected.shape[-1] :].reshape(*expected.shape[:2], heads, -1).transpose(0, 2, 1, 3)
    shares = np.exp(scored - scored.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    np.testing.assert_allclose((shares @ values).transpose(0, 2, 1, 3).reshape(expected.shape), expected, atol=2e-5)


def test_a_weight_beyond_fp16_stays_in_fp32(fused, apply, rewritten):
    here, source = fused("token-classification")
    model = source.model()
    norm = next(node for node in model.graph.node if node.op_type == "SkipLayerNormalization")
    gamma = next(tensor for tensor in model.graph.initializer if tensor.name == norm.input[2])
    unread = numpy_helper.to_array(gamma).copy()
    unread[0] = 1e6
    gamma.CopyFrom(numpy_helper.from_array(unread, gamma.name))
    built = apply(here, "convert_fp16", rewritten(source, model), tolerance=10.0)
    assert norm.name in {row["node"] for row in built.facts["kept_fp32"]}
    assert types_of(built.model())[gamma.name] == TensorProto.FLOAT


def test_patterns_say_what_is_converted(fused, apply):
    here, source = fused("token-classification")
    built = apply(here, "convert_fp16", source, exclude=("*layer.0*",))
    matmuls = [node for node in built.model().graph.node if node.op_type == "MatMul"]
    types = types_of(built.model())
    assert {types[node.input[1]] for node in matmuls if "layer.0" in node.name} == {TensorProto.FLOAT}
    assert {types[node.input[1]] for node in matmuls if "layer.1" in node.name} == {TensorProto.FLOAT16}


def test_tables_of_a_quantized_graph_can_be_halved(context, apply, make_feed, difference):
    here = context("text-classification")
    settings = {"format": "qdq", "activation_type": "int8", "symmetric": True, "exclude": ("*_embeddings*",)}
    source = apply(here, "quantize_static", apply(here, "export"), **settings)
    built = apply(here, "convert_fp16", source, include=("*embeddings*",))
    assert TensorProto.FLOAT16 in types_of(built.model()).values()
    assert TensorProto.INT8 in types_of(built.model()).values()
    assert built.artifact.size_bytes < source.artifact.size_bytes
    assert difference(here, source.open(here), built.open(here), make_feed(here)) < 0.1


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"include": ("nothing*",)}, r"pattern 'nothing\*' matches no node; names look like"),
        ({"exclude": ("*",)}, r"every node would stay in FP32; raise 'max_magnitude' or widen 'include'"),
        ({"max_magnitude": 1e-6}, r"every node would stay in FP32; raise 'max_magnitude'"),
        ({"tolerance": 1e-9}, r"outputs differ from the source model's by .* \(allowed .*\)"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(params, words, fused, apply):
    here, source = fused("text-classification")
    with pytest.raises(StageError, match=rf"^convert_fp16: {words}") as refusal:
        apply(here, "convert_fp16", source, **params)
    assert "\n" not in str(refusal.value)


def test_a_model_in_fp16_is_refused(fused, apply):
    here, source = fused("text-classification")
    with pytest.raises(StageError, match=r"^convert_fp16: the model is in FP16 already; leave the stage out"):
        apply(here, "convert_fp16", apply(here, "convert_fp16", source))


@pytest.mark.parametrize("params", [{"max_magnitude": 0}, {"max_magnitude": 1e6}, {"tolerance": 0}, {"layers": 2}])
def test_parameters_out_of_range_or_unknown_are_refused(params):
    with pytest.raises(ValidationError):
        Params(**params)
