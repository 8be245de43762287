"""The kinds of files that weights come in, and how each is read: FORMATS, in the order in which a folder is searched.

A format knows its container. Whose names and axes it holds is another question, since safetensors are written by every
library: `library` says so of a file, and what is not PyTorch's is put into PyTorch's words (see `foreign`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from optimize.artifact import StoredTensor, stored_tensors
from optimize.errors import SourceError
from optimize.source import flax, tensorflow
from optimize.source.foreign import Array, renamed_arrays, renamed_headers

PYTORCH = "PyTorch"
SAVED_BY = {"tf": "TensorFlow", "flax": "Flax"}
"""Whose weights a safetensors file holds, by the format that transformers notes in it; else PyTorch's."""


@dataclass(frozen=True)
class Format:
    """Files of one kind: the one that holds all weights or, where they are several, their index.

    `files` matches all of them within a folder. `library` says whose names a file has. `headers` gives names, types and
    shapes as they are in a file, without torch, and `arrays` the values; both are None where reading takes torch.
    `needs` are the distributions that read it.
    """

    single: str
    index: str
    files: str
    library: Callable[[Path], str]
    headers: Callable[[Path], dict[str, StoredTensor]] | None = None
    arrays: Callable[[Path], dict[str, Array]] | None = None
    needs: tuple[str, ...] = ()


def _library_of_safetensors(path: Path) -> str:
    from safetensors import safe_open

    stored_tensors(path)  # refuses what is damaged
    with safe_open(path, framework="numpy") as file:
        return SAVED_BY.get((file.metadata() or {}).get("format", ""), PYTORCH)


def _arrays_of_safetensors(path: Path) -> dict[str, Array]:
    import torch
    from safetensors.torch import load_file

    # NumPy has no bfloat16; all of its values are float32's too.
    weights = load_file(path).items()
    return {name: (each.float() if each.dtype == torch.bfloat16 else each).numpy() for name, each in weights}


FORMATS = (
    Format(
        single="model.safetensors",
        index="model.safetensors.index.json",
        files="*.safetensors",
        library=_library_of_safetensors,
        headers=stored_tensors,
        arrays=_arrays_of_safetensors,
        needs=("safetensors",),
    ),
    Format(
        single="pytorch_model.bin",
        index="pytorch_model.bin.index.json",
        files="pytorch_model*.bin",
        library=lambda _: PYTORCH,
    ),
    Format(
        single="tf_model.h5",
        index="tf_model.h5.index.json",
        files="tf_model*.h5",
        library=lambda _: "TensorFlow",
        headers=tensorflow.headers,
        arrays=tensorflow.arrays,
        needs=("h5py",),
    ),
    Format(
        single="flax_model.msgpack",
        index="flax_model.msgpack.index.json",
        files="flax_model*.msgpack",
        library=lambda _: "Flax",
        headers=flax.headers,
        arrays=flax.arrays,
        needs=("msgpack",),
    ),
)


def format_of(names: Collection[str], *, where: str) -> Format:
    """The format that is read of a folder with these files; raises SourceError where none holds weights."""
    for kind in FORMATS:
        if kind.single in names or kind.index in names:
            return kind
    *others, last = (kind.single for kind in FORMATS)
    raise SourceError(f"{where}: no {', '.join(others)} or {last}; save the model with save_pretrained")


def format_of_file(path: Path) -> Format | None:
    """The format of a file by its name, or None for one of another kind, such as an adapter's `.bin`."""
    return next((kind for kind in FORMATS if fnmatch(path.name, kind.files)), None)


def read_headers(kind: Format, path: Path) -> dict[str, StoredTensor] | None:
    """PyTorch's names and shapes of a file's weights, and their types; None where reading takes torch.

    Raises SourceError for what is damaged, and for what is no weight of a DistilBERT in another library's files.
    """
    if kind.headers is None:
        return None
    stored = kind.headers(path)
    return stored if kind.library(path) == PYTORCH else renamed_headers(stored, where=path.name)


def read_foreign(kind: Format, path: Path) -> dict[str, Array]:
    """PyTorch's names and values of a file's weights, where they are another library's; else none."""
    if kind.arrays is None or kind.library(path) == PYTORCH:
        return {}
    return renamed_arrays(kind.arrays(path), where=path.name)
