"""Weights as TensorFlow's and Flax's DistilBERTs save them, written by h5py and msgpack alone; for tests of any folder.

A slow test holds the layouts against the libraries' own files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import msgpack
import numpy as np

Arrays = Mapping[str, np.ndarray[Any, Any]]
KERAS_CLASS = "tf_distil_bert_for_something_1"
NORMS = ("LayerNorm", "_layer_norm")


def levels_of(name: str, norm: tuple[str, str], embedding: str) -> list[str]:
    """A PyTorch name's levels, with another library's word at the end."""
    *levels, last = name.split(".")
    if levels[-1].endswith(NORMS):
        return [*levels, dict(zip(("weight", "bias"), norm, strict=True))[last]]
    if levels[-1].endswith("_embeddings"):
        return [*levels, embedding]
    return [*levels, "kernel" if last == "weight" else last]


def turned(levels: list[str], weight: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return weight.T if levels[-1] == "kernel" else weight


def keras_names(weights: Arrays) -> dict[str, np.ndarray[Any, Any]]:
    """By the names of TensorFlow's variables, without the model's own: 'classifier/kernel:0'."""
    found = {}
    for name, weight in weights.items():
        word = "weight" if "word_embeddings" in name else "embeddings"
        levels = levels_of(name, ("gamma", "beta"), word)
        found["/".join(levels).replace("layer/", "layer_._") + ":0"] = turned(levels, weight)
    return found


def write_h5(path: Path, arrays: Arrays) -> None:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array)


def save_tensorflow(weights: Arrays, folder: Path) -> None:
    """Below each layer the model's and the variable's name, and the embeddings once more below what shares them."""
    found = {}
    for name, array in keras_names(weights).items():
        found[f"{name.split('/')[0]}/{KERAS_CLASS}/{name}"] = array
        if "/embeddings/" in name and "vocab_projector.bias" in weights:
            found[f"vocab_projector/{KERAS_CLASS}/{name}"] = array
    write_h5(folder / "tf_model.h5", found)


def in_shards(folder: Path, file: str, names: list[str], save: Callable[[Path, list[str]], None]) -> None:
    """Halves of the names in two files, and their index."""
    stem, suffix = file.split(".")
    places = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        shard = f"{stem}-0000{number}-of-00002.{suffix}"
        save(folder / shard, part)
        places |= dict.fromkeys(part, shard)
    (folder / f"{file}.index.json").write_text(json.dumps({"weight_map": places}), encoding="utf-8")


def save_tensorflow_shards(weights: Arrays, folder: Path) -> None:
    arrays = keras_names(weights)
    in_shards(
        folder,
        "tf_model.h5",
        [*arrays],
        lambda path, names: write_h5(path, {name: arrays[name] for name in names}),
    )


def packed(
    array: np.ndarray[Any, Any], dtype: str | None = None, shape: object = None, code: int = 1
) -> msgpack.ExtType:
    """An array as Flax packs it; the words can be others than what it holds."""
    words = (array.shape if shape is None else shape, dtype or array.dtype.name, array.tobytes())
    return msgpack.ExtType(code, msgpack.packb(words, use_bin_type=True))


def in_pieces(array: np.ndarray[Any, Any]) -> dict[str, Any]:
    """An array as Flax packs those of more than 1 GiB."""
    halves = np.array_split(array.reshape(-1), 2)
    return {
        "__msgpack_chunked_array__": True,
        "shape": {str(axis): size for axis, size in enumerate(array.shape)},
        "chunks": {str(index): packed(half) for index, half in enumerate(halves)},
    }


def flax_names(weights: Arrays) -> dict[str, np.ndarray[Any, Any]]:
    """By levels joined with '/': 'classifier/kernel'."""
    found = {}
    for name, weight in weights.items():
        levels = levels_of(name, ("scale", "bias"), "embedding")
        found["/".join(levels)] = turned(levels, weight)
    return found


def nested(leaves: Mapping[str, object]) -> dict[str, Any]:
    """Maps within maps, for names of levels."""
    tree: dict[str, Any] = {}
    for name, leaf in leaves.items():
        *levels, last = name.split("/")
        inner = tree
        for level in levels:
            inner = inner.setdefault(level, {})
        inner[last] = leaf
    return tree


def write_msgpack(path: Path, leaves: Mapping[str, object]) -> None:
    path.write_bytes(msgpack.packb(nested(leaves), strict_types=True))


def save_flax(weights: Arrays, folder: Path, pack: Callable[[np.ndarray[Any, Any]], object] = packed) -> None:
    leaves = {name: pack(array) for name, array in flax_names(weights).items()}
    write_msgpack(folder / "flax_model.msgpack", leaves)


def save_flax_shards(weights: Arrays, folder: Path) -> None:
    arrays = flax_names(weights)
    in_shards(
        folder,
        "flax_model.msgpack",
        [*arrays],
        lambda path, names: write_msgpack(path, {name: packed(arrays[name]) for name in names}),
    )
