"""The functions that SageMaker's inference toolkit calls: one input or a list as JSON in, answers as JSON out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from answering import open_model

JSON = "application/json"


def model_fn(model_dir: str) -> Callable[[Any], Any]:
    """Open the model."""
    predict: Callable[[Any], Any] = open_model(Path(model_dir))
    return predict


def input_fn(input_data: bytes | str, content_type: str) -> Any:
    """Read `{"inputs": ...}`, as Hugging Face's containers take it. Raises ValueError for anything else."""
    if content_type.partition(";")[0].strip() != JSON:
        raise ValueError(f"content type '{content_type}': is not read; send {JSON}")
    found = json.loads(input_data)
    if not isinstance(found, dict) or "inputs" not in found:
        raise ValueError('the body has to be an object with "inputs"')
    return found["inputs"]


def predict_fn(data: Any, model: Callable[[Any], Any]) -> Any:
    """Answer one input, or each of a list."""
    return [model(given) for given in data] if isinstance(data, list) else model(data)


def output_fn(prediction: Any, accept: str) -> tuple[str, str]:
    """Write the answers as JSON, whatever else the client would take."""
    del accept
    return json.dumps(prediction, ensure_ascii=False), JSON
