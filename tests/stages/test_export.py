"""Export: dynamic axes, parity with PyTorch under any mask, the readout slice, tied projections."""

import dataclasses
from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from pydantic import ValidationError
from tiers import slow_but

from optimize.errors import StageError, UnavailableError
from optimize.evaluate.parity import compare
from optimize.graphs import tracing
from optimize.graphs.onnx import READOUT_SLICE
from optimize.heads import HEADS
from optimize.stages import STAGES
from optimize.stages.export import Params

NAMES = sorted(HEADS)
SLICED = [name for name in NAMES if HEADS[name].reads == "first token"]
WHOLE = [name for name in NAMES if HEADS[name].reads == "all tokens"]
GEOMETRIES = {
    "relu": {"activation": "relu"},
    "sinusoidal positions": {"sinusoidal_pos_embds": True},
    "one layer": {"n_layers": 1},
    "three layers of 96 in 3 heads": {"n_layers": 3, "dim": 96, "n_heads": 3},
    "vocabulary of no multiple of 8": {"vocab_size": 157},
    "few positions": {"max_position_embeddings": 16},
}


def axes(value):
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def with_output(built, node_name):
    """A function from a feed to the shape of an intermediate node's output."""
    model = built.model()
    name = next(node.output[0] for node in model.graph.node if node.name == node_name)
    model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda feed: session.run([name], feed)[0].shape


def metadata(built):
    return {entry.key: entry.value for entry in built.model().metadata_props}


@pytest.mark.parametrize("head", NAMES)
def test_batch_and_sequence_and_choices_stay_dynamic(head, context, apply):
    graph = apply(context(head), "export").model().graph
    expected = ["batch_size", *(["num_choices"] if head == "multiple-choice" else []), "sequence_length"]
    assert {value.name: axes(value) for value in graph.input} == {"input_ids": expected, "attention_mask": expected}
    assert [value.name for value in graph.output] == list(HEADS[head].outputs)
    leading = expected if head in WHOLE else expected[:-1]
    assert all(axes(value)[: len(leading)] == leading for value in graph.output)


@pytest.mark.parametrize("kind", ["full", "right-padded", "left-padded", "holed"])
@pytest.mark.parametrize("head", NAMES)
def test_outputs_are_those_of_pytorch_whatever_the_mask(head, kind, context, apply, make_feed, difference):
    here = context(head)
    reference = here.open("torch", here.reference.path)
    exported = apply(here, "export").open(here)
    for batch, tokens in ((1, 3), (4, 21)):
        assert difference(here, reference, exported, make_feed(here, kind, batch, tokens)) < 1e-5


@pytest.mark.parametrize("head", NAMES)
def test_the_facts_are_those_of_the_written_graph(head, context, apply):
    built = apply(context(head), "export", opset=18)
    assert (
        built.facts["opset"] == 18 == next(e.version for e in built.model().opset_import if e.domain in ("", "ai.onnx"))
    )
    assert built.facts["readout_slice"] is (head in SLICED)
    assert metadata(built)[READOUT_SLICE] == ("yes" if head in SLICED else "no")
    worst, _ = compare(built.artifact.path, context(head).reference, context(head))
    assert built.facts["max_difference"] == pytest.approx(worst, abs=1e-6)


@pytest.mark.parametrize("head", slow_but("multiple-choice"))
def test_the_other_exporter_of_pytorch_writes_the_same_graph(head, context, apply, make_feed, difference):
    here = context(head)
    usual, other = apply(here, "export", opset=18), apply(here, "export", exporter="dynamo", opset=18)
    assert difference(here, usual.open(here), other.open(here), make_feed(here, "holed")) < 1e-5
    assert heavy(usual) == heavy(other)
    for module in ("attention/q_lin", "ffn/lin1", "output_layer_norm"):
        assert any(name.rpartition("/")[0].endswith(f"/transformer/layer.1/{module}") for name in names(other))


def test_facts_say_what_the_other_exporter_wrote_where_it_writes_no_older_operators(context, apply):
    built = apply(context("text-classification"), "export", exporter="dynamo", opset=17)
    assert built.model().opset_import[0].version == built.facts["opset"] >= 17


def names(built):
    return [node.name for node in built.graph().graph]


def heavy(built):
    """How often each operator that takes time is in a graph."""
    counts = Counter(built.operators())
    return {
        name: counts[name] for name in ("MatMul", "Gemm", "Softmax", "LayerNormalization", "Transpose", "Erf", "Add")
    }


def test_the_version_of_optimum_is_in_the_key_where_it_exports():
    depends = STAGES["export"].depends
    assert (depends(Params(exporter="optimum")), depends(Params())) == ({"optimum"}, frozenset())


def test_an_exporter_that_is_not_installed_is_refused(context, monkeypatch, tmp_path):
    monkeypatch.setattr(tracing, "find_spec", lambda _: None)
    here = context("fill-mask")
    with pytest.raises(UnavailableError, match=r"^export: exporter 'optimum' needs optimum-onnx; pip install"):
        STAGES["export"].run(here.reference, tmp_path, Params(exporter="optimum"), here)


@pytest.mark.parametrize(("params", "version"), [({}, 8), ({"opset": 21}, 10), ({"ir_version": 9}, 9)])
def test_the_file_format_is_the_oldest_that_has_the_operators_or_the_one_asked_for(params, version, context, apply):
    built = apply(context("text-classification"), "export", **params)
    assert built.model().ir_version == built.facts["ir_version"] == version
    assert built.model().opset_import[0].version == built.facts["opset"] == params.get("opset", 17)


@pytest.mark.parametrize("kind", ["full", "left-padded", "holed"])
@pytest.mark.parametrize("head", SLICED)
def test_the_readout_slice_changes_no_output(head, kind, context, apply, make_feed, difference):
    here = context(head)
    sliced = apply(here, "export").open(here)
    whole = apply(here, "export", readout_slice=False).open(here)
    assert difference(here, sliced, whole, make_feed(here, kind)) < 1e-5


@pytest.mark.parametrize("head", SLICED)
def test_the_sliced_layer_computes_one_token_and_the_layers_before_all(head, context, apply, make_feed):
    here = context(head)
    feed = make_feed(here, tokens=21)
    last, before = (
        "/distilbert/transformer/layer.1/ffn/lin1/MatMul",
        "/distilbert/transformer/layer.0/ffn/lin1/MatMul",
    )
    sliced, whole = apply(here, "export"), apply(here, "export", readout_slice=False)
    assert [with_output(sliced, node)(feed)[1] for node in (before, last)] == [21, 1]
    assert [with_output(whole, node)(feed)[1] for node in (before, last)] == [21, 21]


@pytest.mark.parametrize("head", SLICED)
def test_the_sliced_layer_still_attends_to_every_token(head, context, apply, make_feed):
    here = context(head)
    session, feed = apply(here, "export").open(here), make_feed(here)
    changed = {**feed, "input_ids": feed["input_ids"].copy()}
    changed["input_ids"][..., -1] += 1
    changed["input_ids"][..., -1] %= 100
    assert np.abs(session(feed)["logits"] - session(changed)["logits"]).max() > 1e-4


@pytest.mark.parametrize("head", WHOLE)
def test_a_head_that_reads_all_tokens_is_not_sliced(head, context, apply, make_feed):
    here = context(head)
    built = apply(here, "export", readout_slice=True)
    node = next(node.name for node in built.model().graph.node if node.name.endswith("layer.1/ffn/lin1/MatMul"))
    assert with_output(built, node)(make_feed(here, tokens=21))[1] == 21
    assert built.facts["readout_slice"] is False


@pytest.mark.parametrize("head", ["text-classification", "fill-mask"])
@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_every_stage_takes_odd_geometries(geometry, head, random_context, apply, make_feed, difference):
    here = random_context(head, **geometry)
    exported = apply(here, "export")
    fused = apply(here, "fuse", exported, embedding=False)
    quantized = apply(here, "quantize_dynamic", fused)
    feed = make_feed(here, "left-padded", tokens=13)
    reference = here.open("torch", here.reference.path)
    scale = np.abs(reference(feed)["logits"]).max()
    assert difference(here, reference, fused.open(here), feed) < 1e-4
    assert difference(here, reference, quantized.open(here), feed) < 0.1 * scale
    assert quantized.facts["float_matmuls"] == 0


def test_a_tied_projection_reads_the_one_table(context, apply):
    here = context("fill-mask")
    built = apply(here, "export")
    tables = [name for name, array in built.weights().items() if sorted(array.shape) == [128, 220] and array.ndim == 2]
    transposes = [node for node in built.model().graph.node if list(node.input) == tables]
    assert tables == ["distilbert.embeddings.word_embeddings.weight"]
    assert [node.op_type for node in transposes] == ["Transpose"]


def test_an_untied_projection_keeps_its_own_weight(random_context, apply):
    here = random_context("fill-mask", tie_word_embeddings=False)
    built = apply(here, "export")
    shapes = [array.shape for array in built.weights().values() if sorted(array.shape) == [64, 203]]
    assert sorted(shapes) == [(64, 203), (203, 64)]


def test_a_graph_that_differs_from_its_checkpoint_is_refused_in_one_line(random_context, tmp_path):
    here, other = random_context("text-classification"), random_context("text-classification", seed=1)
    folders = {"torch": other.reference.path}
    astray = dataclasses.replace(here, open=lambda kind, folder: here.open(kind, folders.get(kind, folder)))
    from optimize.stages.export import run

    with pytest.raises(
        StageError, match=r"^export: outputs differ from the source model's by .*; this graph is not used"
    ) as refusal:
        run(here.reference, tmp_path, Params(), astray)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "params", [{"opset": 13}, {"opset": 22}, {"tolerance": 0}, {"tolerance": float("inf")}, {"slice": True}]
)
def test_parameters_out_of_range_or_unknown_are_refused(params):
    with pytest.raises(ValidationError):
        Params(**params)


def optimized(built, tmp_path):
    """Operators of a graph after ONNX Runtime's own optimizations."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(built.artifact.path / "model.onnx", options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]


@pytest.mark.parametrize("head", HEADS)
def test_a_lean_graph_computes_the_same_without_scaling_scores(head, context, apply, make_feed, difference):
    here = context(head)
    plain, lean = apply(here, "export"), apply(here, "export", lean=True)
    for kind in ("full", "right-padded", "left-padded", "holed"):
        assert difference(here, plain.open(here), lean.open(here), make_feed(here, kind)) < 1e-4
    assert lean.facts["max_difference"] < 1e-4
    layers = 2
    # In place of a division of each layer's scores, a reshape of each of its two residual sums.
    assert plain.operators().count("Div") - lean.operators().count("Div") == layers
    assert lean.operators().count("Reshape") - plain.operators().count("Reshape") == 2 * layers


@pytest.mark.parametrize("head", ["text-classification", "fill-mask"])
def test_residual_sums_of_a_lean_graph_stay_apart_from_their_norms(head, context, apply, tmp_path):
    here = context(head)
    built = apply(here, "quantize_dynamic", apply(here, "export", lean=True))
    assert "SkipLayerNormalization" not in optimized(built, tmp_path)


def test_onnx_runtime_still_fuses_them_otherwise_so_parting_is_not_idle(context, apply, tmp_path):
    here = context("text-classification")
    built = apply(here, "quantize_dynamic", apply(here, "export"))
    assert "SkipLayerNormalization" in optimized(built, tmp_path)
