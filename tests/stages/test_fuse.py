"""Fusion: it fires as often as the geometry says, near misses are refused, and any mask comes out right."""

import collections

import numpy as np
import onnxruntime
import pytest
from onnx import helper
from pydantic import ValidationError

from optimize.errors import StageError
from optimize.evaluate.parity import compare
from optimize.heads import HEADS
from optimize.stages.fuse import Params, check_counts, expected_counts

NAMES = sorted(HEADS)
MASKS = ["full", "right-padded", "left-padded", "holed"]


def expected_in(head, *, sliced, embedding):
    geometry = {"n_layers": 2, "activation": "gelu"}
    return expected_counts(geometry, sliced=sliced, embedding=embedding, head=HEADS[head])


def disturbed(built, op_type, at):
    """The graph with the last `op_type` whose name holds `at` fed by -(-x): equal, and no pattern any more."""
    model = built.model()
    node = [node for node in model.graph.node if node.op_type == op_type and at in node.name][-1]
    place = list(model.graph.node).index(node)
    source = node.input[0]
    node.input[0] = "disturbed"
    model.graph.node.insert(place, helper.make_node("Neg", [source], ["negative"], name="once"))
    model.graph.node.insert(place + 1, helper.make_node("Neg", ["negative"], ["disturbed"], name="twice"))
    return model


@pytest.mark.parametrize("embedding", [True, False])
@pytest.mark.parametrize("head", NAMES)
def test_the_facts_are_the_counts_in_the_written_graph(head, embedding, context, apply):
    here = context(head)
    built = apply(here, "fuse", apply(here, "export"), embedding=embedding)
    found = collections.Counter(built.operators())
    facts = {name: count for name, count in built.facts.items() if name != "max_difference"}
    assert facts == {name: found[name] for name in facts}
    sliced = here.head.reads == "first token"
    expected = expected_in(head, sliced=sliced, embedding=embedding)
    assert {name: facts.get(name, 0) for name in expected} == expected


@pytest.mark.parametrize(
    ("geometry", "options", "expected"),
    [
        ({"n_layers": 6, "activation": "gelu"}, {}, [1, 6, 12, 6]),
        ({"n_layers": 6, "activation": "gelu"}, {"sliced": True}, [1, 5, 12, 6]),
        ({"n_layers": 1, "activation": "gelu"}, {"sliced": True}, [1, 0, 2, 1]),
        ({"n_layers": 6, "activation": "relu"}, {}, [1, 6, 12, 0]),
        ({"n_layers": 6, "activation": "gelu"}, {"embedding": False}, [0, 6, 12, 6]),
        ({"n_layers": 6, "activation": "gelu"}, {"head": "fill-mask"}, [1, 6, 12, 7]),
        ({"n_layers": 6, "activation": "relu"}, {"head": "fill-mask"}, [1, 6, 12, 0]),
    ],
)
def test_what_must_fire_follows_from_the_geometry(geometry, options, expected):
    options = {"sliced": False, "embedding": True, "head": "token-classification", **options}
    head = HEADS[options.pop("head")]
    assert list(expected_counts(geometry, head=head, **options).values()) == expected


def test_more_fusions_than_needed_are_welcome_and_fewer_are_refused():
    check_counts({"Attention": 3}, {"Attention": 2, "BiasGelu": 0})
    with pytest.raises(StageError, match=r"^fuse: BiasGelu fused 0 times where the model has 2; leave out 'fuse'"):
        check_counts({"Attention": 2}, {"Attention": 2, "BiasGelu": 2})


def test_relu_is_left_as_it_is(random_context, apply):
    here = random_context("token-classification", activation="relu")
    built = apply(here, "fuse", apply(here, "export"))
    operators = built.operators()
    assert "BiasGelu" not in operators
    assert "BiasGelu" not in built.facts
    assert operators.count("Relu") == 2
    assert operators.count("Attention") == 2


def test_without_the_slice_every_layer_of_attention_is_fused(context, apply):
    here = context("text-classification")
    whole = apply(here, "fuse", apply(here, "export", readout_slice=False))
    sliced = apply(here, "fuse", apply(here, "export"))
    assert (whole.operators().count("Attention"), sliced.operators().count("Attention")) == (2, 1)
    assert (whole.operators().count("Softmax"), sliced.operators().count("Softmax")) == (0, 1)


@pytest.mark.parametrize(
    ("head", "op_type", "at", "fused"),
    [
        ("token-classification", "Softmax", "", "Attention"),
        ("token-classification", "Erf", "", "BiasGelu"),
        ("token-classification", "LayerNormalization", "output_layer_norm", "SkipLayerNormalization"),
        ("token-classification", "LayerNormalization", "embeddings", "EmbedLayerNormalization"),
        ("fill-mask", "Erf", "layer.1", "BiasGelu"),
        ("text-classification", "Softmax", "layer.0", "Attention"),
    ],
)
def test_a_layer_that_is_written_otherwise_is_refused_by_its_operator(
    head, op_type, at, fused, context, apply, rewritten
):
    here = context(head)
    exported = apply(here, "export")
    near_miss = rewritten(exported, disturbed(exported, op_type, at))
    assert compare(near_miss.artifact.path, here.reference, here)[0] < 1e-5
    with pytest.raises(
        StageError, match=rf"^fuse: {fused} fused \d times where the model has \d; leave out"
    ) as refusal:
        apply(here, "fuse", near_miss, embedding=fused == "EmbedLayerNormalization")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("head", NAMES)
def test_fused_outputs_are_those_of_pytorch_whatever_the_mask(head, kind, context, apply, make_feed, difference):
    here = context(head)
    fused = apply(here, "fuse", apply(here, "export")).open(here)
    assert difference(here, here.open("torch", here.reference.path), fused, make_feed(here, kind)) < 2e-5


@pytest.mark.parametrize("kind", MASKS)
def test_the_fused_operators_are_right_without_the_runtimes_own_optimizations(kind, context, apply, make_feed):
    here = context("token-classification")
    built, feed = apply(here, "fuse", apply(here, "export")), make_feed(here, kind)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    plain = onnxruntime.InferenceSession(built.artifact.path / "model.onnx", options)
    logits = plain.run(["logits"], feed)[0]
    expected = here.open("torch", here.reference.path)(feed)["logits"]
    np.testing.assert_allclose(logits[feed["attention_mask"] == 1], expected[feed["attention_mask"] == 1], atol=2e-5)


@pytest.mark.parametrize(("kind", "right"), [("right-padded", True), ("left-padded", False), ("holed", False)])
def test_workaround_the_optimizers_default_mask_format_still_gets_left_padding_wrong(
    kind, right, context, apply, make_feed, difference, tmp_path
):
    """Once this fails, `use_raw_attention_mask` in stages/fuse.py is no longer needed."""
    from onnxruntime.transformers import optimizer

    here = context("token-classification")
    graph = str(apply(here, "export").artifact.path / "model.onnx")
    model = optimizer.optimize_model(graph, model_type="bert", num_heads=4, hidden_size=128, opt_level=0)
    model.save_model_to_file(str(tmp_path / "model.onnx"))
    fused = here.open("onnx", tmp_path)
    worst = difference(here, here.open("torch", here.reference.path), fused, make_feed(here, kind))
    assert (worst < 1e-4) == right


def test_a_model_that_is_quantized_already_is_refused(context, apply):
    here = context("text-classification")
    quantized = apply(here, "quantize_dynamic", apply(here, "export"))
    with pytest.raises(
        StageError, match=r"^fuse: the model is quantized already \(.*MatMulInteger.*\); start from the FP32"
    ):
        apply(here, "fuse", quantized)


def test_a_fused_graph_beyond_the_tolerance_is_refused(context, apply):
    here = context("token-classification")
    with pytest.raises(
        StageError, match=r"^fuse: outputs differ from the source model's by .* \(allowed .*\); this graph is not used"
    ):
        apply(here, "fuse", apply(here, "export"), tolerance=1e-12)


@pytest.mark.parametrize(
    "params", [{"tolerance": 0}, {"tolerance": float("inf")}, {"embedding": "perhaps"}, {"layers": 2}]
)
def test_parameters_out_of_range_or_unknown_are_refused(params):
    with pytest.raises(ValidationError):
        Params(**params)
