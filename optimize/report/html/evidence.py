"""What lies beside a manifest that the page shows: the seconds of every run, answers in words, what got worse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from optimize import examples, manifest
from optimize.compared import Regression, read_regression
from optimize.errors import RequestError
from optimize.examples import Example
from optimize.files.arrays import read_arrays, unfit
from optimize.interfaces import Array
from optimize.manifest import Manifest

MOST_BYTES = 2**30
"""Of the seconds of runs, uncompressed."""


@dataclass(frozen=True)
class Evidence:
    """Seconds of runs, [runs] by model and shape, and the examples, both empty where a run has none; what got worse."""

    runs: Mapping[tuple[str, str], Array] = field(default_factory=dict)
    examples: Sequence[Example] = ()
    regression: Regression | None = None


def read_evidence(record: Manifest, folder: Path) -> Evidence:
    """Read what a run folder has; refuse files that are not of its manifest."""
    found = examples.read(folder)
    metric = record.measurements[-1].metric if record.measurements else None
    if found and (metric is None or metric.examples != len(found)):
        stated = metric.examples if metric else 0
        raise RequestError(
            f"{folder / examples.FILE}: holds {len(found):,} examples where the manifest says {stated:,}; certify the "
            "run again"
        )
    return Evidence(_read_runs(folder), found, read_regression(folder, record))


def _read_runs(folder: Path) -> dict[tuple[str, str], Array]:
    path, found = folder / manifest.RUNS, dict[tuple[str, str], Array]()
    for name, array in read_arrays(path, most_bytes=MOST_BYTES).items():
        model, _, shape = name.rpartition("/")
        found[model, shape] = _seconds(array, path)
    return found


def _seconds(array: Array, path: Path) -> Array:
    import numpy as np

    if array.ndim != 1 or not array.size or array.dtype.kind != "f" or not np.isfinite(array).all():
        raise unfit(path, "it holds what is no list of seconds")
    if array.min() <= 0:
        raise unfit(path, "it holds seconds that are not above 0")
    return array
