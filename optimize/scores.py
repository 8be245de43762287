"""What each example scored: `scores.npz` of a run folder, written and read again, for comparing runs in pairs.

    NAME/statistics  [N, k]     what the metric is made of
    NAME/right       [N]        whether the answer was right, where that can be said
    NAME/decisions   [M]        what was decided, one or several an example
    NAME/ordinal                there where it is the order of decisions that counts, and not their values
    NAME/classes     [N, C, 3]  what F1 is made of, of the classes in the manifest: true positives, predicted and right

NAME is a measurement's. Runs of earlier versions have no decisions, or no classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from optimize.evaluate.classes import that_occur
from optimize.files.arrays import put_arrays, read_arrays, unfit
from optimize.interfaces import Array, Score

FILE = "scores.npz"
MOST_BYTES = 2**31
"""Of arrays that are read; vectors of a few thousand texts have some ten million."""
STATISTICS, RIGHT, DECISIONS, ORDINAL, CLASSES = "statistics", "right", "decisions", "ordinal", "classes"


@dataclass(frozen=True)
class Kept:
    """What was kept of one model's score; None is what was not recorded."""

    statistics: Array | None = None
    right: Array | None = None
    decisions: Array | None = None
    ordinal: bool = False
    classes: Array | None = None


def write_scores(scores: Mapping[str, Score], folder: Path) -> None:
    """Write what the models scored; nothing where there are none."""
    found = {}
    for name, score in scores.items():
        # Decisions that are Python's objects, as a head of a user's own may have them, no file of arrays can hold.
        decisions = None if score.decisions.dtype.hasobject else score.decisions
        classes = None if score.classes is None else _small(that_occur(score.classes))
        found[name] = Kept(score.statistics, score.right, decisions, score.ordinal, classes)
    write_kept(found, folder)


def _small(counts: Array) -> Array:
    """Counts in as few bytes as the largest needs."""
    import numpy as np

    return counts.astype(np.min_scalar_type(int(counts.max(initial=0))))


def write_kept(scores: Mapping[str, Kept], folder: Path) -> None:
    """Write what was kept of scores, in one step; no file where there are none."""
    import numpy as np

    arrays = {}
    for name, kept in scores.items():
        parts = {STATISTICS: kept.statistics, RIGHT: kept.right, DECISIONS: kept.decisions, CLASSES: kept.classes}
        arrays.update({f"{name}/{part}": array for part, array in parts.items() if array is not None})
        if kept.ordinal:
            arrays[f"{name}/{ORDINAL}"] = np.array(True)
    put_arrays(folder / FILE, arrays)


def read_scores(folder: Path) -> dict[str, Kept]:
    """What was kept of each model's score, by its measurement's name; nothing where the run has no such file."""
    path, parts = folder / FILE, dict[str, dict[str, Array]]()
    for name, array in read_arrays(path, most_bytes=MOST_BYTES).items():
        model, _, part = name.rpartition("/")
        parts.setdefault(model, {})[part] = array
    return {model: _kept(found, path) for model, found in parts.items()}


def _kept(parts: Mapping[str, Array], path: Path) -> Kept:
    statistics, right, decisions, classes = (parts.get(part) for part in (STATISTICS, RIGHT, DECISIONS, CLASSES))
    if statistics is not None and (statistics.ndim != 2 or statistics.dtype.kind not in "biuf"):
        raise unfit(path, "its statistics are no table of numbers")
    if right is not None and (right.ndim != 1 or right.dtype.kind != "b"):
        raise unfit(path, "what is right in it is no list of truths")
    if decisions is not None and decisions.ndim != 1:
        raise unfit(path, "its decisions are no list")
    if classes is not None and (classes.shape[2:] != (3,) or classes.dtype.kind not in "iu"):
        raise unfit(path, "its classes are no table of counts")
    return Kept(statistics, right, decisions, ORDINAL in parts, classes)
