"""Requests of Triton as inputs of a model, and inputs of a model as one array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

Array = np.ndarray[Any, Any]


def inputs_of(known: Any, request: Any) -> list[Any]:
    """The inputs of a request as mappings of their fields."""
    columns: dict[str, list[Any]] = {}
    for name in (*known.settings["inputs"], *known.settings["optional"]):
        tensor = pb_utils.get_input_tensor_by_name(request, name)
        if tensor is not None:
            texts = np.vectorize(bytes.decode, otypes=[object])(tensor.as_numpy())
            columns[name] = texts.tolist() if name == "choices" else texts[:, 0].tolist()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def padded(arrays: Sequence[Array], shape: tuple[int, ...], fill: int) -> Array:
    """Arrays [1, ...] as one [inputs, ...] of at most `shape`, filled at the end of each axis."""
    found = np.full((len(arrays), *shape[1:]), fill, dtype=np.int64)
    for place, array in enumerate(arrays):
        places: Any = (place, *(slice(size) for size in array.shape[1:]))
        found[places] = array[0]
    return found
