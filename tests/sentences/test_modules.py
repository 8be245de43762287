"""The modules behind a transformer, against sentence-transformers' definitions in NumPy."""

import numpy as np
import pytest
import torch
from encoders import weights_of

from optimize.errors import SourceError
from optimize.sentences.layout import read_encoder
from optimize.sentences.modules import build, pool

HIDDEN = np.random.default_rng(1).normal(size=(3, 6, 128)).astype(np.float32)
LENGTHS = (6, 2, 1)
MASK = (np.arange(6) < np.array(LENGTHS)[:, None]).astype(np.int64)
KINDS = {
    "cls": lambda rows: rows[0],
    "max": lambda rows: rows.max(axis=0),
    "mean": lambda rows: rows.mean(axis=0),
    "mean_sqrt_len_tokens": lambda rows: rows.sum(axis=0) / np.sqrt(len(rows)),
    "weightedmean": lambda rows: np.average(rows, axis=0, weights=np.arange(1, len(rows) + 1)),
    "lasttoken": lambda rows: rows[-1],
}
DENSE = {"in_features": 128, "out_features": 16, "activation_function": "torch.nn.modules.activation.Tanh"}


def pooled(kind):
    """By its definition, from the tokens that are no padding."""
    return np.stack([KINDS[kind](HIDDEN[row, :length]) for row, length in enumerate(LENGTHS)])


def embedded(folder):
    modules = build(read_encoder(folder, where="here"), folder)
    return modules(torch.from_numpy(HIDDEN), torch.from_numpy(MASK)).numpy()


@pytest.mark.parametrize("kinds", [*((kind,) for kind in KINDS), ("mean", "cls"), ("max", "lasttoken", "mean")])
def test_each_kind_of_pooling_is_its_definition_and_leaves_padding_out(kinds):
    found = pool(torch.from_numpy(HIDDEN), torch.from_numpy(MASK), kinds).numpy()

    assert np.allclose(found, np.concatenate([pooled(kind) for kind in kinds], axis=1), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("activation.Tanh", np.tanh),
        ("activation.ReLU", lambda x: np.maximum(x, 0)),
        ("activation.Sigmoid", lambda x: 1 / (1 + np.exp(-x))),
        ("linear.Identity", lambda x: x),
    ],
)
@pytest.mark.parametrize("bias", [True, False])
def test_a_dense_is_its_weights_and_its_activation(name, function, bias, encoder_folder):
    config = {**DENSE, "bias": bias, "activation_function": f"torch.nn.modules.{name}"}
    weights = weights_of("Dense", config)

    found = embedded(encoder_folder(("Dense", config), pooling="mean"))

    expected = pooled("mean") @ weights["linear.weight"].T + weights.get("linear.bias", 0)
    assert np.allclose(found, function(expected), atol=1e-5)


def test_normalize_gives_unit_vectors_and_a_norm_its_own_scale_and_dropout_nothing(encoder_folder):
    vector = pooled("cls")
    centred = (vector - vector.mean(axis=1, keepdims=True)) / np.sqrt(vector.var(axis=1, keepdims=True) + 1e-5)
    weights = weights_of("LayerNorm", {"dimension": 128})
    normed = centred * weights["norm.weight"] + weights["norm.bias"]

    found = embedded(
        encoder_folder(("LayerNorm", {"dimension": 128}), ("Dropout", {"dropout": 0.5}), ("Normalize", {}))
    )

    assert np.allclose(found, normed / np.linalg.norm(normed, axis=1, keepdims=True), atol=1e-5)


def test_an_embedding_is_cut_behind_all_modules(encoder_folder):
    whole = embedded(encoder_folder(("Normalize", {})))
    cut = embedded(encoder_folder(("Normalize", {}), described={"truncate_dim": 7}))

    assert np.array_equal(cut, whole[:, :7])


@pytest.mark.parametrize("change", [{"out_features": 17}, {"bias": False}])
def test_weights_that_the_config_does_not_speak_of_are_refused(change, encoder_folder):
    folder = encoder_folder(("Dense", {**DENSE, **change}))
    (folder / "2_Dense" / "config.json").write_text('{"in_features": 128, "out_features": 16}', encoding="utf-8")

    with pytest.raises(SourceError, match=r"2_Dense/model.safetensors: linear\.\w+ is not what config.json"):
        embedded(folder)


def test_missing_weights_are_refused(encoder_folder):
    folder = encoder_folder(("Dense", DENSE))
    (folder / "2_Dense" / "model.safetensors").unlink()

    with pytest.raises(SourceError, match=r"2_Dense/model\.safetensors: is missing"):
        embedded(folder)
