"""What Triton's two Python models share: how inputs go from the first to the last, beside the rows of the graph."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

Array = np.ndarray[Any, Any]
GIVEN = "given"
"""The tensor that says, beside the first row of an input, what it is, as JSON; nothing beside its other rows."""


def inputs_of(known: Any, request: Any) -> list[dict[str, Any]]:
    """The inputs of a request as mappings of their fields."""
    columns: dict[str, list[Any]] = {}
    for name in (*known.settings["inputs"], *known.settings["optional"]):
        tensor = pb_utils.get_input_tensor_by_name(request, name)
        if tensor is not None:
            texts = np.vectorize(bytes.decode, otypes=[object])(tensor.as_numpy())
            columns[name] = texts.tolist() if name == "choices" else texts[:, 0].tolist()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def written(inputs: Sequence[Any], counts: Sequence[int]) -> Array:
    """Inputs beside their rows, of which each has so many: [rows, 1]."""
    texts: list[bytes] = []
    for given, count in zip(inputs, counts, strict=True):
        texts += [json.dumps(given).encode(), *[b""] * (count - 1)]
    return np.array(texts, dtype=np.object_)[:, None]


def read(array: Array) -> Iterator[tuple[Any, slice]]:
    """Each input, and its rows."""
    starts = [place for place, text in enumerate(array[:, 0]) if text]
    for start, stop in zip(starts, [*starts[1:], len(array)], strict=True):
        yield json.loads(array[start, 0]), slice(start, stop)


def padded(arrays: Sequence[Array], most: Sequence[int], fill: int) -> Array:
    """Arrays [rows, ...] below each other, [all rows, *most], filled at the end of each axis."""
    wide = []
    for array in arrays:
        missing = [(0, size - own) for size, own in zip(most, array.shape[1:], strict=True)]
        wide.append(np.pad(array, [(0, 0), *missing], constant_values=fill))
    return np.concatenate(wide)
