"""What is found in a graph of OpenVINO: weights under their layers' names, and products of activations."""

import numpy as np
import pytest

from optimize.graphs.openvino import find_weights, layer_name, products_of_activations
from optimize.runtimes.openvino import read_model

LAYERS = 2


def converted(context, apply, head):
    return apply(context(head), "convert_openvino", apply(context(head), "export"))


def test_every_weight_is_found_under_its_layers_name(context, apply):
    built = converted(context, apply, "token-classification")
    model = read_model(built.artifact.path)
    weights = find_weights(model)
    linear = [weight.name for weight in weights if not weight.looks_up]
    assert len(linear) == 6 * LAYERS + 1
    assert "distilbert.transformer.layer.0.ffn.lin1" in linear
    assert sum(weight.looks_up for weight in weights) == 2
    assert {weight.dtype for weight in weights} == {"f32"}
    assert len(products_of_activations(model)) == LAYERS


@pytest.mark.parametrize(
    ("operator", "name"),
    [
        ("/distilbert/transformer/layer.0/attention/q_lin/MatMul", "distilbert.transformer.layer.0.attention.q_lin"),
        ("/classifier/Gemm/WithoutBiases", "classifier"),
        ("/distilbert/embeddings/word_embeddings/Gather", "distilbert.embeddings.word_embeddings"),
        ("MatMul_17", "MatMul_17"),
    ],
)
def test_a_layers_name_is_the_checkpoints(operator, name):
    assert layer_name(operator) == name


def test_weights_and_attention_are_told_apart_from_other_constants(context, apply):
    built = converted(context, apply, "multiple-choice")
    weights = find_weights(read_model(built.artifact.path))
    arrays = {tuple(array.shape) for array in apply(context("multiple-choice"), "export").weights().values()}
    assert {weight.parameters for weight in weights} <= {int(np.prod(shape)) for shape in arrays}
