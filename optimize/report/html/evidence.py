"""What lies beside a manifest that the page shows: the seconds of every run, and answers in words."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from optimize import examples, manifest
from optimize.errors import RequestError, first_line
from optimize.examples import Example
from optimize.interfaces import Array
from optimize.manifest import Manifest

MOST_BYTES = 2**30
"""Of the seconds of runs, uncompressed."""


@dataclass(frozen=True)
class Evidence:
    """Seconds of runs, [runs] by model and shape, and the examples; both empty where a run has none."""

    runs: Mapping[tuple[str, str], Array] = field(default_factory=dict)
    examples: Sequence[Example] = ()


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
    return Evidence(_read_runs(folder), found)


def _read_runs(folder: Path) -> dict[tuple[str, str], Array]:
    import numpy as np

    path = folder / manifest.RUNS
    if not path.is_file():
        return {}
    found: dict[tuple[str, str], Array] = {}
    try:
        _require_small(path)
        with np.load(path, allow_pickle=False) as arrays:
            for name in arrays.files:
                model, _, shape = name.rpartition("/")
                found[model, shape] = _seconds(arrays[name])
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise RequestError(f"{path}: is not what a run writes ({first_line(error)}); certify the run again") from error
    return found


def _require_small(path: Path) -> None:
    with zipfile.ZipFile(path) as packed:
        if sum(each.file_size for each in packed.infolist()) > MOST_BYTES:
            raise ValueError(f"it holds more than {MOST_BYTES:,} bytes")


def _seconds(array: Array) -> Array:
    import numpy as np

    if array.ndim != 1 or not array.size or array.dtype.kind != "f" or not np.isfinite(array).all():
        raise ValueError("it holds what is no list of seconds")
    if array.min() <= 0:
        raise ValueError("it holds seconds that are not above 0")
    return array
