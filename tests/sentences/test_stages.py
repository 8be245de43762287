"""What stages make of a sentence encoder: its embedding comes out of the graph, and its modules stay in float."""

import numpy as np
import pytest
import torch

from optimize.measure.kinds import KINDS
from optimize.sentences.layout import read_encoder
from optimize.sentences.modules import build

DENSE = {"in_features": 128, "out_features": 16, "activation_function": "torch.nn.modules.activation.Tanh"}
TOKENS, EMBEDDING = "last_hidden_state", "sentence_embedding"


@pytest.fixture(scope="module")
def here(encoder_folder, encoder_context):
    """An encoder that pools the first token, with a Dense and a Normalize."""
    return encoder_context(encoder_folder(("Dense", DENSE), ("Normalize", {})))


def outputs(built):
    return [value.name for value in built.model().graph.output]


def from_tokens(folder, session, feed):
    """What sentence-transformers does with a graph: the folder's own modules behind its hidden states."""
    hidden = torch.from_numpy(session.run([TOKENS], feed)[0])
    return build(read_encoder(folder, where="here"), folder)(hidden, torch.from_numpy(feed["attention_mask"])).numpy()


def onnx_session(built):
    import onnxruntime

    return onnxruntime.InferenceSession(built.artifact.path / "model.onnx", providers=["CPUExecutionProvider"])


def test_tokens_come_out_beside_the_embedding_unless_it_is_asked_for_alone(here, apply, make_feed, difference):
    both, alone = apply(here, "export"), apply(here, "export", token_embeddings=False)

    assert (outputs(both), both.facts["token_embeddings"]) == ([TOKENS, EMBEDDING], True)
    assert (outputs(alone), alone.facts["token_embeddings"]) == ([EMBEDDING], False)
    assert not both.facts["readout_slice"]
    assert alone.facts["readout_slice"]  # the last layer need compute the first token alone
    for kind in ("full", "right-padded", "holed"):
        feed = make_feed(here, kind)
        assert difference(here, here.open("torch", here.reference.path), both.open(here), feed) < 1e-5
        assert difference(here, both.open(here), alone.open(here), feed) < 1e-5


@pytest.mark.parametrize("pooling", ["mean", ["max", "lasttoken"], ["mean_sqrt_len_tokens", "weightedmean"]])
def test_every_pooling_is_exported_for_any_batch_and_length(
    pooling, encoder_folder, encoder_context, apply, make_feed, difference
):
    there = encoder_context(encoder_folder(pooling=pooling))
    built = apply(there, "export", lean=True)

    assert not built.facts["readout_slice"]
    reference = there.open("torch", there.reference.path)
    for batch, tokens in ((1, 1), (5, 30)):
        assert difference(there, reference, built.open(there), make_feed(there, "full", batch, tokens)) < 1e-5


@pytest.mark.parametrize("stage", ["quantize_dynamic", pytest.param("quantize_static", marks=pytest.mark.slow)])
def test_modules_stay_in_float_so_that_both_ways_give_one_vector(stage, here, apply, make_feed):
    built = apply(here, stage, apply(here, "export"))
    folder, feed = built.artifact.path, make_feed(here, "full")

    operators = [node.op_type for node in built.model().graph.node if node.name.startswith("/sentence/")]
    assert {"Gemm", "MatMul"} & set(operators)
    assert not {name for name in operators if "Integer" in name or "QLinear" in name or name.startswith("Dynamic")}
    assert np.allclose(from_tokens(folder, onnx_session(built), feed), built.open(here)(feed)[EMBEDDING], atol=1e-5)
    KINDS["onnx"].require_whole(built.artifact, here.head)


@pytest.mark.slow
def test_openvino_gives_the_embedding_and_leaves_the_modules_in_float(here, apply, make_feed, difference):
    from optimize.graphs.openvino import find_weights
    from optimize.runtimes.openvino import read_model

    converted = apply(here, "convert_openvino", apply(here, "export"))
    quantized = apply(here, "quantize_openvino", converted, accuracy_control=False)

    feed = make_feed(here, "right-padded")
    assert difference(here, here.open("torch", here.reference.path), converted.open(here), feed) < 1e-5
    weights = {weight.name: weight.quantized for weight in find_weights(read_model(quantized.artifact.path))}
    assert [name for name, done in weights.items() if not done] == ["sentence.layers.0.linear"]
    assert EMBEDDING in quantized.open(here)(feed)
    KINDS["openvino"].require_whole(quantized.artifact, here.head)


@pytest.mark.slow
def test_a_stage_that_changes_weights_leaves_the_modules_as_they_are(here, apply):
    before, after = here.reference.path, apply(here, "prune_weights").artifact.path
    ids = np.ones((1, 4), np.int64)

    for name in ("modules.json", "1_Pooling/config.json", "2_Dense/model.safetensors"):
        assert (after / name).read_bytes() == (before / name).read_bytes()
    assert EMBEDDING in here.open("torch", after)({"input_ids": ids, "attention_mask": ids})
