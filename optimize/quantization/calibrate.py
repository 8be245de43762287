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
from typing import TYPE_CHECKING

import numpy as np

from optimize.errors import StageError
from optimize.evaluate.memory import release_free_memory
from optimize.interfaces import Feature, Feed, Progress
from optimize.quantization.observers import Observer, make_observer
from optimize.quantization.ranges import Method, Range
from optimize.runtimes.onnx_runtime import SLEEPING, cpu_session, further_outputs, input_names, session_options

if TYPE_CHECKING:
    import onnx
    import onnxruntime

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
    observers: dict[str, Observer] = {}
    for name in tensors:
        observers[name] = make_observer(method, percentile=percentile, symmetric=symmetric, momentum=momentum)
    session = open_augmented(model, list(observers), threads)
    for done, feature in enumerate(features):
        if done % RELEASE_EVERY == 0:
            release_free_memory()
        for feed in unpadded(feature):
            _observe(session, feed, observers, where)
        if progress is not None:
            progress.step("calibrate", done + 1, len(features))
    least = _least_values(method, percentile)
    ranges: dict[str, Range] = {}
    for name, observer in observers.items():
        _refuse_few_values(name, observer.values, least, len(features), where)
        ranges[name] = observer.range()
    return ranges


def unpadded(feature: Feature) -> Iterator[Feed]:
    """A feature's texts as batches of one, only what the attention mask lets through: [1, t] each.

    A feature of multiple choice gives one feed per choice, [1, 1, t], cut to the choice's own length.
    """
    mask = feature.inputs["attention_mask"] == 1
    shape = (1,) * mask.ndim + (-1,)
    # A feature without choices is one row of tokens, and one with choices a row for each.
    for row in range(len(mask)) if mask.ndim == 2 else (slice(None),):
        kept = mask[row]
        if kept.any():
            yield {name: array[row][kept].reshape(shape) for name, array in feature.inputs.items()}


def open_augmented(model: onnx.ModelProto, tensors: Sequence[str], threads: int) -> onnxruntime.InferenceSession:
    """ONNX Runtime's session of a model that gives `tensors` out as well; the model is left as it is."""
    # The values are counted on the cores that spinning threads would take, and kept memory grows to what the longest
    # text needs with all its activations.
    options = session_options(threads, SLEEPING, keep_memory=False)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "augmented.onnx")
        with path.open("wb") as file:
            file.write(model.SerializeToString())
            file.write(further_outputs(model, tensors))
        return cpu_session(path, options)


def _observe(session: onnxruntime.InferenceSession, feed: Feed, observers: Mapping[str, Observer], where: str) -> None:
    """Run one text and show each tensor's observer what it came to."""
    values = session.run(list(observers), {name: feed[name] for name in input_names(session)})
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
        raise StageError(f"{where}: {momentum:g} is not a momentum; choose 0 to below 1, such as {MOMENTUM}")


def _refuse_few_texts(method: Method, texts: int, where: str) -> None:
    if texts < LEAST_TEXTS[method]:
        raise StageError(
            f"{where}: {method} needs at least {LEAST_TEXTS[method]} texts and {texts} are there; "
            "raise --calibration-examples"
        )


def _least_values(method: Method, percentile: float) -> int:
    """How many values a tensor must have for the percentile to cut one off."""
    if method != "percentile" or percentile == 100.0:
        return 1
    # 100 - 99.99 is 0.01 and a little: rounded, so that the ceiling does not ask for one more than needed.
    return math.ceil(round(100.0 / (100.0 - percentile), 3))


def _refuse_few_values(name: str, values: int, least: int, texts: int, where: str) -> None:
    """Refuse a percentile that would cut off less than one value: that is minmax by another name."""
    if values < least:
        needed = math.ceil(texts * least / values) if values else texts + 1
        raise StageError(
            f"{where}: the percentile needs at least {least} values per tensor and {values} are there for '{name}'; "
            f"raise --calibration-examples to some {needed}, or lower the percentile"
        )
