"""Weight files: which ones there are, what they hold, and whether that is enough for a head.

Headers of safetensors are read without torch. `.bin` files are read with `weights_only`, so that no
code in a pickle ever runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from optimize.artifact import stored_tensors
from optimize.checkpoint import Config
from optimize.errors import SourceError, first_line
from optimize.files.small import read_json
from optimize.heads import HEADS
from optimize.interfaces import Head
from optimize.source.geometry import check_shapes

if TYPE_CHECKING:
    from torch import Tensor

SAFETENSORS = ("model.safetensors", "model.safetensors.index.json")
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
SAFETENSORS_TYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64"}


def check_weights(folder: Path, head: Head, config: Config, *, where: str) -> None:
    """Refuse damaged safetensors, weights of other sizes than the config's, and a checkpoint without the head's.

    What is missing would be random. What `.bin` files hold is checked when they are loaded, because that takes torch.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for path in weight_files(folder):
        if path.suffix != ".safetensors":
            return
        shapes.update((name, tensor.shape) for name, tensor in stored_tensors(path).items())
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


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights: safetensors where there are any, else `.bin`; sharded or not."""
    for single, index in (SAFETENSORS, PICKLES):
        if (folder / single).exists():
            return [_regular(folder / single)]
        if (folder / index).exists():
            return _shards(folder, folder / index)
    raise SourceError(f"{folder}: no model.safetensors or pytorch_model.bin; save the model with save_pretrained")


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
    """The data types of the stored weights, such as 'float16', and the weights' names with their shapes."""
    import torch

    types: set[str] = set()
    shapes: dict[str, tuple[int, ...]] = {}
    for path in weight_files(folder):
        if path.suffix == ".safetensors":
            for name, tensor in stored_tensors(path).items():
                types.add(SAFETENSORS_TYPES.get(tensor.dtype, tensor.dtype))
                shapes[name] = tensor.shape
            continue
        for name, value in read_pickle(path).items():
            # A state dict may hold numbers too, such as a version.
            if isinstance(value, torch.Tensor):
                shapes[name] = tuple(value.shape)
                types.add(str(value.dtype).removeprefix("torch."))
    return ", ".join(sorted(types)), shapes


def read_pickle(path: Path) -> dict[str, Tensor]:
    """The weights of a `.bin` file, without running any code in it."""
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
