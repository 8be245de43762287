"""Weight files: which ones there are, what they hold, and whether that is enough for a head.

Headers are read without torch, save those of `.bin` files. These are read with `weights_only`, so that no code in a
pickle ever runs. Which kinds of files there are is said in `formats`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from optimize.artifact import StoredTensor
from optimize.checkpoint import Config, read_config
from optimize.errors import SourceError, first_line
from optimize.files.small import read_json
from optimize.interfaces import Head
from optimize.source.foreign import Array, complete
from optimize.source.formats import FORMATS, PYTORCH, Format, format_of, format_of_file, read_foreign, read_headers
from optimize.source.geometry import check_shapes
from optimize.source.labels import check_classes
from optimize.source.names import check_head, left_over, wrapping

if TYPE_CHECKING:
    from torch import Tensor

STATE_DICTS = ("state_dict", "model_state_dict")
"""Under which names Lightning and others keep a state dict in a file of more."""
SAFETENSORS_TYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64"}


def check_weights(folder: Path, head: Head, config: Config, *, where: str) -> None:
    """Refuse damaged files, weights of other sizes than the config's, and a checkpoint without the head's.

    What is missing would be random. What `.bin` files hold is checked when they are loaded, because that takes torch.
    """
    shapes = header_shapes(weight_files(folder))
    if shapes is not None:
        check_stored(shapes, head, config, where=where)


def header_shapes(files: Iterable[Path]) -> dict[str, tuple[int, ...]] | None:
    """Names and shapes of what files hold, by their headers; None where reading takes torch."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path in files:
        kind = format_of_file(path)
        tensors = None if kind is None else read_headers(kind, path)
        if tensors is None:
            return None
        shapes.update((name, tensor.shape) for name, tensor in tensors.items())
    return shapes


def check_stored(
    stored: Mapping[str, tuple[int, ...]], head: Head, config: Config, *, where: str
) -> tuple[str, list[str]]:
    """Refuse weights, by names and shapes, that are not the head's; what wraps their names, and what is left over."""
    wrapper = wrapping(stored, where=where)
    plain = {name.removeprefix(wrapper): shape for name, shape in stored.items()}
    check_shapes(config, plain, where=where)
    check_head(where, head, plain, config)
    check_classes(plain, head, config, where=where)
    return wrapper, left_over(head, plain)


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
    found = {}
    for name, value in read_pickle(path).items():
        found[name] = StoredTensor(str(value.dtype).removeprefix("torch."), tuple(value.shape))
    return found


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
    return dict(_tensors(weights, path))


def _tensors(content: object, path: Path) -> Iterator[tuple[str, Tensor]]:
    """The weights of a pickle, which training loops keep beside an optimizer's state and numbers such as an epoch."""
    import torch

    for name in STATE_DICTS:
        content = content.get(name, content) if isinstance(content, dict) else content
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise SourceError(f"{path.name}: holds no state dict; save the model with save_pretrained")
    for name, value in content.items():
        if isinstance(value, torch.Tensor):  # a state dict may hold numbers too, such as a version
            yield name, value
