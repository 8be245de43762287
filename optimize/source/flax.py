"""flax_model.msgpack: the weights of a Flax DistilBERT, read without Flax.

Flax writes nested maps with MessagePack, and an array as a value of extension type 1, in which shape, data type and
bytes are packed once more. Arrays of more than 1 GiB come as a map of flat pieces. See flax/serialization.py; what else
it can write, such as complex numbers, no DistilBERT has.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from optimize.artifact import StoredTensor
from optimize.errors import SourceError, brief, first_line

ARRAY = 1
"""The extension type of an array."""
TYPES = {"float16": ("F16", "<f2"), "bfloat16": ("BF16", "<u2"), "float32": ("F32", "<f4"), "float64": ("F64", "<f8")}
"""What safetensors and NumPy call Flax's data types; NumPy has no bfloat16, which is the upper half of a float32."""
PIECES = "__msgpack_chunked_array__"
MOST_DIMENSIONS = 8
MOST_ENTRIES = 100_000


@dataclass(frozen=True)
class _Leaf:
    dtype: str
    values: npt.NDArray[Any]

    def header(self) -> StoredTensor:
        return StoredTensor(self.dtype, self.values.shape)

    def array(self) -> npt.NDArray[Any]:
        if self.dtype != "BF16":
            return self.values
        return (self.values.astype(np.uint32) << 16).view(np.float32)


def headers(path: Path) -> dict[str, StoredTensor]:
    """Names as they are in the file, types and shapes; all of it is read for that. Raises SourceError."""
    return {name: leaf.header() for name, leaf in _read(path).items()}


def arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Names as they are in the file, and values; bfloat16 as float32 of the same values. Raises SourceError."""
    return {name: leaf.array() for name, leaf in _read(path).items()}


def _read(path: Path) -> dict[str, _Leaf]:
    import msgpack

    try:
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            tree = msgpack.unpackb(
                content,
                ext_hook=_leaf,
                max_array_len=MOST_DIMENSIONS,
                max_map_len=MOST_ENTRIES,
            )
        return dict(_leaves(tree, ""))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise SourceError(f"{path.name}: cannot be read ({brief(first_line(error))}); copy it again") from error


def _leaf(code: int, data: bytes) -> _Leaf:
    import msgpack

    if code != ARRAY:
        raise ValueError(f"an extension of type {code} is no array")
    packed = msgpack.unpackb(data, raw=True, max_array_len=MOST_DIMENSIONS)
    if not isinstance(packed, list) or len(packed) != 3 or not isinstance(packed[2], bytes):
        raise ValueError("an array does not have shape, type and bytes")
    shape, dtype, content = packed
    name = dtype.decode() if isinstance(dtype, bytes) else ""
    if name not in TYPES:
        raise ValueError(f"an array of '{brief(dtype)}' holds no floating-point numbers")
    code_name, numpy_name = TYPES[name]
    values = np.frombuffer(content, dtype=numpy_name)
    return _Leaf(code_name, _shaped(values, shape))


def _shaped(values: npt.NDArray[Any], shape: object) -> npt.NDArray[Any]:
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"'{brief(shape)}' is no shape")
    if math.prod(shape) != values.size:
        raise ValueError(f"{values.size:,} numbers have not the shape {brief(shape)}")
    return values.reshape(shape)


def _leaves(tree: object, prefix: str) -> Iterator[tuple[str, _Leaf]]:
    """All arrays of nested maps, by the names of the maps on the way."""
    if not isinstance(tree, Mapping):
        raise TypeError(f"'{prefix[:-1]}' is no map of arrays")
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from [(name, _joined(value))] if PIECES in value else _leaves(value, f"{name}/")
        elif isinstance(value, _Leaf):
            yield name, value
        else:
            raise TypeError(f"'{name}' is no array")


def _joined(pieces: Mapping[object, Any]) -> _Leaf:
    """An array that was cut into flat pieces; both its shape and the pieces are maps of "0", "1", and so on."""
    shape, parts = (_in_order(pieces.get(name)) for name in ("shape", "chunks"))
    if not parts or not all(isinstance(part, _Leaf) and part.dtype == parts[0].dtype for part in parts):
        raise ValueError("an array's pieces are no arrays of one type")
    return _Leaf(parts[0].dtype, _shaped(np.concatenate([part.values.reshape(-1) for part in parts]), shape))


def _in_order(numbered: object) -> list[Any]:
    if not isinstance(numbered, Mapping) or set(numbered) != {str(index) for index in range(len(numbered))}:
        raise ValueError("an array's pieces are not numbered")
    return [numbered[str(index)] for index in range(len(numbered))]
