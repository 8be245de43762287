"""The Open Inference Protocol, version 2, as KServe states it: tensors of texts in, tensors of answers out.

Each part of an input is a tensor of BYTES: `text`, or `question` and `context`, or `context` and `choices`. Answers
that are mappings with the same keys become a tensor for each key, arrays become one, and others are JSON in a tensor
`answer`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from optimize.errors import DataError, shown
from optimize.using.asking import Task

TYPES: dict[type, str] = {str: "BYTES", float: "FP64", int: "INT64"}
LISTED = frozenset({"choices"})
"""Parts of an input that are lists, so that their tensors have two axes."""
JSON_ANSWER = "answer"


def tensors_in(task: Task) -> list[dict[str, Any]]:
    """The tensors that a model takes; those that may be left out are not among them."""
    needed = task.needed or task.fields[:1]
    return [{"name": name, "datatype": "BYTES", "shape": [-1, -1] if name in LISTED else [-1]} for name in needed]


def tensors_out(task: Task) -> list[dict[str, Any]]:
    """The tensors that a model gives, with its usual options."""
    found = []
    for name, kind in (task.gives or {JSON_ANSWER: str}).items():
        array = kind is np.ndarray
        found.append({"name": name, "datatype": "FP32" if array else TYPES[kind], "shape": [-1, -1] if array else [-1]})
    return found


def read_inputs(content: Mapping[str, Any], task: Task) -> list[Any]:
    """The inputs that the tensors of a request hold. Raises DataError for what is not of the protocol."""
    tensors = content.get("inputs")
    if not isinstance(tensors, list) or not tensors or not all(isinstance(each, dict) for each in tensors):
        raise DataError("inputs: is no list of tensors; give name, shape, datatype and data of each")
    columns: dict[str, list[Any]] = {}
    for each in tensors:
        name = each.get("name")
        if name not in task.fields or name in columns:
            raise DataError(f"inputs: {shown(name)} is given twice or not known; give {', '.join(task.fields)}")
        columns[name] = _column(name, each)
    if len({len(each) for each in columns.values()}) > 1:
        raise DataError("inputs: the first axes of the tensors differ; give as many of each")
    if list(columns) == ["text"]:
        return columns["text"]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _column(name: str, tensor: Mapping[str, Any]) -> list[Any]:
    """The rows of a tensor."""
    shape, data = tensor.get("shape"), tensor.get("data")
    if tensor.get("datatype") != "BYTES" or not isinstance(data, list) or not isinstance(shape, list):
        raise DataError(f"inputs: {name} is no tensor of BYTES with shape and data; give it as JSON")
    if any(isinstance(each, list) for each in data):
        data = [value for row in data for value in (row if isinstance(row, list) else [row])]
    axes = 2 if name in LISTED else 1
    whole = all(isinstance(size, int) and size > 0 for size in shape)
    if not whole or len(shape) != axes or math.prod(shape) != len(data):
        raise DataError(f"inputs: {name} has {len(data)} values, which its shape {shown(shape)} is not of; mend it")
    if axes == 1:
        return data
    return [data[start : start + shape[1]] for start in range(0, len(data), shape[1])]


def write_answers(answers: Sequence[Any]) -> list[dict[str, Any]]:
    """Answers as tensors, the first axis theirs."""
    first, count = answers[0], len(answers)
    if isinstance(first, np.ndarray):
        rows = np.stack(answers)
        return [{"name": "embedding", "datatype": "FP32", "shape": [*rows.shape], "data": rows.ravel().tolist()}]
    if all(isinstance(each, dict) and list(each) == list(first) for each in answers):
        found = []
        for name, value in first.items():
            data = [each[name] for each in answers]
            found.append({"name": name, "datatype": TYPES[type(value)], "shape": [count], "data": data})
        return found
    texts = [json.dumps(each) for each in answers]
    return [{"name": JSON_ANSWER, "datatype": "BYTES", "shape": [count], "data": texts}]
