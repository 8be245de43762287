"""Run calibration texts through a graph and keep, per tensor, the range to quantize it with.

One text runs at a time, alone and without padding, so padding never enters a range and memory does
not grow with the number of texts. ONNX Runtime's own percentile and entropy calibrators keep every
activation of every text (onnxruntime issue 10503: 123 GB for 32 samples of BERT).
"""

from __future__ import annotations

import difflib
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from optimize.errors import StageError
from optimize.evaluate.memory import release_free_memory
from optimize.interfaces import Feature, Feed, Progress
from optimize.quantization.observers import Observer, make_observer
from optimize.quantization.ranges import Method, Range

if TYPE_CHECKING:
    import onnx

RELEASE_EVERY = 16
MOMENTUM = 0.99
LEAST_TEXTS: Mapping[Method, int] = {"minmax": 1, "moving_average": 1, "percentile": 1, "entropy": 8, "mse": 8}
"""Distributions of a handful of texts are those texts' own."""


def calibrate(
    model: onnx.ModelProto,
    tensors: Sequence[str],
    features: Sequence[Feature],
    *,
    method: Method,
    percentile: float = 99.99,
    symmetric: bool = False,
    momentum: float = MOMENTUM,
    threads: int,
    progress: Progress | None = None,
    where: str = "calibration",
) -> dict[str, Range]:
    """The range of each of `tensors`, outputs of any of the graph's nodes, over `features`.

    `percentile` is the share of values kept, in percent; `momentum` is what an average keeps per
    text. With `symmetric` a range is as wide below 0 as above. `model` is left as it is.
    """
    _refuse_parameters(method, percentile, momentum, where)
    _refuse_few_texts(method, len(features), where)
    _require_tensors(model, tensors, where)
    observers = {
        name: make_observer(method, percentile=percentile, symmetric=symmetric, momentum=momentum) for name in tensors
    }
    session = open_augmented(model, list(observers), threads)
    for done, feature in enumerate(features):
        if done % RELEASE_EVERY == 0:
            release_free_memory()
        for feed in unpadded(feature):
            _observe(session, feed, observers, where)
        if progress is not None:
            progress.step("calibrate", done + 1, len(features))
    least = math.ceil(round(100.0 / (100.0 - percentile), 3)) if method == "percentile" and percentile < 100.0 else 1
    for name, observer in observers.items():
        _refuse_few_values(name, observer.values, least, len(features), where)
    return {name: observer.range() for name, observer in observers.items()}


def unpadded(feature: Feature) -> Iterator[Feed]:
    """A feature's texts as batches of one, only what the attention mask lets through: [1, t] each.

    A feature of multiple choice gives one feed per choice, [1, 1, t], cut to the choice's own length.
    """
    mask = feature.inputs["attention_mask"] == 1
    if mask.ndim == 1:
        texts = [(feature.inputs, mask)]
    else:
        texts = [({name: array[row] for name, array in feature.inputs.items()}, mask[row]) for row in range(len(mask))]
    for inputs, kept in texts:
        if kept.any():
            yield {name: array[kept].reshape((1,) * mask.ndim + (-1,)) for name, array in inputs.items()}


def open_augmented(model: onnx.ModelProto, tensors: Sequence[str], threads: int) -> Any:
    """An ONNX Runtime session that gives `tensors` out as well.

    Concatenated messages are one message to protobuf, its lists joined, so the outputs are added
    behind the serialized model: no copy of the weights is made, and the caller's model not touched.
    Memory is taken and given back text by text, rather than kept for the longest one yet.
    """
    import onnx
    import onnxruntime

    present = {output.name for output in model.graph.output}
    added = onnx.GraphProto(output=[onnx.ValueInfoProto(name=name) for name in tensors if name not in present])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    # Spinning threads would take the core on which values are counted.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "augmented.onnx")
        with path.open("wb") as file:
            file.write(model.SerializeToString())
            file.write(onnx.ModelProto(graph=added).SerializeToString())
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _observe(session: Any, feed: Feed, observers: Mapping[str, Observer], where: str) -> None:
    wanted = {node.name: feed[node.name] for node in session.get_inputs()}
    values = session.run(list(observers), wanted)
    for (name, observer), array in zip(observers.items(), values, strict=True):
        if array.dtype not in (np.float32, np.float16):
            raise StageError(f"{where}: tensor '{name}' holds {array.dtype}; calibrate float tensors only")
        try:
            observer.update(array)
        except FloatingPointError as error:
            raise StageError(
                f"{where}: tensor '{name}' is not finite ({error}); check the checkpoint, or leave the layer in float"
            ) from error


def _require_tensors(model: onnx.ModelProto, tensors: Sequence[str], where: str) -> None:
    known = {output for node in model.graph.node for output in node.output}
    for name in tensors:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"did you mean '{near[0]}'?" if near else "take the names from the graph that is calibrated"
            raise StageError(f"{where}: no node of the graph gives a tensor '{name}'; {hint}")


def _refuse_parameters(method: Method, percentile: float, momentum: float, where: str) -> None:
    if method == "percentile" and not 50.0 < percentile <= 100.0:
        raise StageError(f"{where}: percentile {percentile:g} would cut off most values; choose 99 to 100")
    if method == "moving_average" and not 0.0 <= momentum < 1.0:
        raise StageError(f"{where}: momentum {momentum:g} is none; choose 0 to below 1, such as {MOMENTUM}")


def _refuse_few_texts(method: Method, texts: int, where: str) -> None:
    if texts < LEAST_TEXTS[method]:
        raise StageError(
            f"{where}: {method} needs at least {LEAST_TEXTS[method]} texts and {texts} are there; "
            "raise --calibration-examples"
        )


def _refuse_few_values(name: str, values: int, least: int, texts: int, where: str) -> None:
    """Refuse a percentile that would cut off less than one value: that is minmax by another name."""
    if values < least:
        needed = math.ceil(texts * least / values) if values else texts + 1
        raise StageError(
            f"{where}: the percentile needs at least {least} values per tensor and {values} are there for '{name}'; "
            f"raise --calibration-examples to some {needed}, or lower the percentile"
        )
