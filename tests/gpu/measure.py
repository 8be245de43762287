"""The table of the CUDA target on this machine's GPU, as JSON; `make gpu` runs it, in some minutes.

At distilbert-base's geometry with random weights: PyTorch in FP32, FP16 and compiled, plain ONNX Runtime, and every
pipeline of this project that can be built here, in one run, from this machine's memory and on the device. Beside it,
how far each model's outputs are from PyTorch FP32's for batches without padding, padded on the right, on the left, and
with holes in their masks. Exit code 1 where a float model's are wrong, 3 without a GPU.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np

from optimize.bench import HEAD, method_of, prepare
from optimize.building import Loaded
from optimize.cli.progress import progress
from optimize.errors import OptimizeError
from optimize.evaluate.parity import probes
from optimize.heads import HEADS
from optimize.interfaces import Session
from optimize.machine import environment
from optimize.measure.subjects import Subject, measure_subjects
from optimize.measure.workers import opener
from optimize.planning import Options

SHAPES = ("1x16", "1x128", "8x128", "32x128", "1x384", "32xdata")
TOLERANCE = 0.02
"""Of the largest output: what FP16 may be off by."""


def main() -> int:
    """Measure, print, and say by the exit code whether outputs are right."""
    start = time.monotonic()
    with progress() as shown:
        loaded, subjects = prepare(Options(target="cuda", pipeline="auto", shapes=SHAPES), progress=shown)
        differences = {each.name: differ(subjects[0], each, loaded) for each in subjects[1:]}
        results = measure_subjects(subjects, None, method=method_of(loaded, subjects), progress=shown)
    wrong = sorted(
        name for name, found in differences.items() if "int8" not in name and not found["relative"] <= TOLERANCE
    )
    table = {
        "machine": environment.detect().model_dump(mode="json"),
        "device": loaded.plan.target.describe(loaded.settings),
        "geometry": "distilbert-base, random weights, text classification",
        "largest_difference_from_pytorch_fp32": differences,
        "wrong": wrong,
        "measurements": [each.model_dump(mode="json") for each in results.measurements],
        "left_out": dict(loaded.plan.left_out),
        "seconds": round(time.monotonic() - start, 1),
    }
    print(json.dumps(table, indent=2))
    return 1 if wrong else 0


def differ(reference: Subject, subject: Subject, loaded: Loaded) -> dict[str, float]:
    """The largest difference of a model's outputs over all probes, and its share of the largest output."""
    expected, found = open_subject(reference, loaded), open_subject(subject, loaded)
    worst = scale = 0.0
    for feed in probes(loaded.context):
        for name, values in expected(feed).items():
            worst = float(np.maximum(worst, np.abs(values - found(feed)[name]).max()))
            scale = max(scale, float(np.abs(values).max()))
    return {"absolute": worst, "relative": worst / scale}


def open_subject(subject: Subject, loaded: Loaded) -> Session:
    """The model as it is measured."""
    threads = loaded.plan.request.threads
    return opener(subject.target)(subject.artifact.path, threads, HEADS[HEAD], subject.runtime)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OptimizeError as error:
        sys.exit(print(f"measure: {error}", file=sys.stderr) or error.exit_code)
