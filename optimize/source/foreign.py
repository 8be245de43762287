"""TensorFlow's and Flax's DistilBERTs in PyTorch's words: what each weight is called, and which axis comes first.

Both put the model's modules into one another as PyTorch does, under the same names; what differs is the last word of a
name, and that a kernel is [inputs, outputs]. Keras puts a layer's and a class's name before that, and writes the
embeddings once more below `vocab_projector`, which shares them. The projection of a masked language model is the
embedding itself in both libraries, so it is stored in neither.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from optimize.artifact import StoredTensor
from optimize.errors import SourceError, brief

Array = npt.NDArray[Any]
Tensor = TypeVar("Tensor", Array, StoredTensor)

LAYER = r"transformer/layer/\d+/(?:attention/[qkv]_lin|attention/out_lin|ffn/lin[12]|sa_layer_norm|output_layer_norm)"
BODY = rf"(?P<body>embeddings/(?:word_embeddings|position_embeddings|LayerNorm)|{LAYER})"
HEAD = r"(?P<head>vocab_transform|vocab_layer_norm|vocab_projector|pre_classifier|classifier|qa_outputs)"
PLACE = re.compile(rf"(?:[^/]+/)*(?:{BODY}|{HEAD})/(?P<word>\w+)")
LAST_WORDS = {
    "kernel": "weight",
    "embeddings": "weight",
    "embedding": "weight",
    "weight": "weight",
    "gamma": "weight",
    "scale": "weight",
    "beta": "bias",
    "bias": "bias",
}
VECTORS = ("gamma", "scale", "beta", "bias")
WORDS, POSITIONS = "distilbert.embeddings.word_embeddings.weight", "distilbert.embeddings.position_embeddings.weight"
PROJECTION, PROJECTION_BIAS = "vocab_projector.weight", "vocab_projector.bias"
LONGEST_NAME = 1000
SAVE = "save the model again with transformers' save_pretrained"


def renamed_headers(stored: Mapping[str, StoredTensor], *, where: str) -> dict[str, StoredTensor]:
    """PyTorch's names and shapes of what a file of another library says that it holds."""
    return _renamed(
        stored,
        turn=lambda tensor: replace(tensor, shape=tensor.shape[::-1]),
        same=lambda one, other: one == other,
        where=where,
    )


def renamed_arrays(stored: Mapping[str, Array], *, where: str) -> dict[str, Array]:
    """PyTorch's names and values of what a file of another library holds."""
    return _renamed(stored, turn=np.transpose, same=np.array_equal, where=where)


def complete(weights: dict[str, Array], config: Mapping[str, Any]) -> None:
    """Add what these libraries do not store: a projection that is the embedding, and positions that are sines."""
    if PROJECTION_BIAS in weights and WORDS in weights:
        weights.setdefault(PROJECTION, weights[WORDS])
    if config.get("sinusoidal_pos_embds") and WORDS in weights:
        positions = int(config.get("max_position_embeddings", 512))
        weights.setdefault(POSITIONS, sines(positions, weights[WORDS].shape[1]))


def sines(positions: int, width: int) -> Array:
    """The table of Vaswani et al. (2017), [positions, width]: sines in even columns, cosines in odd ones."""
    columns = np.arange(width)
    angles = np.arange(positions)[:, None] / 10000 ** (2 * (columns // 2) / width)
    return np.where(columns % 2, np.cos(angles), np.sin(angles)).astype(np.float32)


def _renamed(
    stored: Mapping[str, Tensor],
    *,
    turn: Callable[[Tensor], Tensor],
    same: Callable[[Tensor, Tensor], bool],
    where: str,
) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for path, tensor in stored.items():
        name, word = _place(path, where=where)
        if len(tensor.shape) != (1 if word in VECTORS else 2):
            raise SourceError(f"{where}: {brief(path)} has the shape {list(tensor.shape)}; {SAVE}")
        value = turn(tensor) if word == "kernel" else tensor
        if name in found and not same(found[name], value):
            raise SourceError(f"{where}: holds {name} twice, each time another ({brief(path)}); {SAVE}")
        found[name] = value
    return found


def _place(path: str, *, where: str) -> tuple[str, str]:
    """PyTorch's name of a weight, and the last word of its own; Keras writes 'layer_._0' for 'layer/0'."""
    levels = path.removesuffix(":0").replace("_._", "/").replace(".", "/")
    match = PLACE.fullmatch(levels) if len(path) <= LONGEST_NAME else None
    if match is None or match["word"] not in LAST_WORDS:
        raise SourceError(f"{where}: {brief(path)} is no weight of a DistilBERT; {SAVE}")
    module = f"distilbert/{match['body']}" if match["body"] else match["head"]
    return f"{module}/{LAST_WORDS[match['word']]}".replace("/", "."), match["word"]
