"""Weight files: which ones there are, what they hold, and whether that is enough for a head.

Headers are read without torch, save those of `.bin` files. These are read with `weights_only`, so that no code in a
pickle ever runs. Which kinds of files there are is said in `formats`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from optimize.artifact import StoredTensor
from optimize.checkpoint import Config, read_config
from optimize.errors import SourceError, first_line
from optimize.files.small import read_json
from optimize.heads import HEADS
from optimize.interfaces import Head
from optimize.source.foreign import Array, complete
from optimize.source.formats import FORMATS, PYTORCH, Format, format_of, read_foreign, read_headers
from optimize.source.geometry import check_shapes

if TYPE_CHECKING:
    from torch import Tensor

SAFETENSORS_TYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64"}


def check_weights(folder: Path, head: Head, config: Config, *, where: str) -> None:
    """Refuse damaged files, weights of other sizes than the config's, and a checkpoint without the head's.

    What is missing would be random. What `.bin` files hold is checked when they are loaded, because that takes torch.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for path in weight_files(folder):
        tensors = read_headers(weight_format(folder), path)
        if tensors is None:
            return
        shapes.update((name, tensor.shape) for name, tensor in tensors.items())
    check_shapes(config, shapes, where=where)
    check_head(where, head, set(shapes))


def check_head(where: str, head: Head, names: set[str]) -> None:
    """Refuse weights without the head's own, or with another head's."""
    for name in head.weights:
        if name not in names:
            raise SourceError(
                f"{where}: no weights for head '{head.name}' ({name} is missing); fine-tune it, or give another --head"
            )
    others: set[str] = set()
    for other in HEADS.values():
        others.update(other.weights)
    # A head without weights of its own, such as feature extraction, is part of every checkpoint.
    if head.weights and (foreign := sorted((others - set(head.weights)) & names)):
        raise SourceError(f"{where}: holds another head than '{head.name}' ({foreign[0]}); leave out --head")


def weight_format(folder: Path) -> Format:
    """The kind of files that hold the weights: PyTorch's where there are any."""
    return format_of({path.name for path in folder.iterdir()}, where=str(folder))


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights, sharded or not."""
    kind = weight_format(folder)
    if (folder / kind.single).exists():
        return [_regular(folder / kind.single)]
    return _shards(folder, folder / kind.index)


def _shards(folder: Path, index: Path) -> list[Path]:
    content = read_json(index, where=str(index), refusal=SourceError, advice="save the model again")
    places = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise SourceError(f"{index}: not an index of weights (no weight_map to files' names); save the model again")
    paths = [folder / name for name in sorted(set(places.values()))]
    for path in paths:
        # An index is data from elsewhere: it is not to name files outside the folder.
        if path.parent != folder or not path.exists():
            raise SourceError(f"{folder}: shard {path.name} is missing; copy the whole checkpoint")
    return [_regular(path) for path in paths]


def _regular(path: Path) -> Path:
    if not path.is_file():  # opening a FIFO would wait for somebody to write it
        raise SourceError(f"{path}: is not a regular file; save the model again")
    return path


def stored(folder: Path) -> tuple[str, dict[str, tuple[int, ...]]]:
    """How the weights are stored, such as 'float16' or 'float32, TensorFlow', and their names and shapes in PyTorch."""
    types: set[str] = set()
    libraries: set[str] = set()
    shapes: dict[str, tuple[int, ...]] = {}
    kind = weight_format(folder)
    for path in weight_files(folder):
        tensors = read_headers(kind, path)
        for name, tensor in (_pickled(path) if tensors is None else tensors).items():
            types.add(SAFETENSORS_TYPES.get(tensor.dtype, tensor.dtype))
            shapes[name] = tensor.shape
        libraries.add(kind.library(path))
    return ", ".join([*sorted(types), *sorted(libraries - {PYTORCH})]), shapes


def convert_foreign(folder: Path) -> None:
    """Put weights of another library beside them in PyTorch's form, which goes first; PyTorch's stay as they are."""
    from safetensors.numpy import save_file

    kind = weight_format(folder)
    weights: dict[str, Array] = {}
    for path in weight_files(folder):
        weights |= read_foreign(kind, path)
    if weights:
        complete(weights, read_config(folder))
        plain = {name: np.ascontiguousarray(weight) for name, weight in weights.items()}
        save_file(plain, folder / FORMATS[0].single, metadata={"format": "pt"})


def _pickled(path: Path) -> dict[str, StoredTensor]:
    import torch

    found = {}
    for name, value in _read_pickle(path).items():
        # A state dict may hold numbers too, such as a version.
        if isinstance(value, torch.Tensor):
            found[name] = StoredTensor(str(value.dtype).removeprefix("torch."), tuple(value.shape))
    return found


def _read_pickle(path: Path) -> dict[str, Tensor]:
    import pickle
    import warnings

    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle's protocol: what cannot be read is refused below
            weights = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise SourceError(
            f"{path.name}: holds more than weights, and code in a pickle is not run; save as safetensors"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise SourceError(f"{path.name}: cannot be read ({first_line(error)}); copy it again") from error
    if not isinstance(weights, dict):
        raise SourceError(f"{path.name}: holds no state dict; save the model with save_pretrained")
    return weights
