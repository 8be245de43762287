"""Two runs' F1 by class on the same examples: of macro F1, and of the class that stands worst."""

from __future__ import annotations

from typing import NamedTuple

from optimize.comparing.judged import Judged
from optimize.errors import RequestError
from optimize.evaluate.classes import class_f1, f1_p_values
from optimize.interfaces import Array
from optimize.manifest import ClassF1
from optimize.rule import ROUNDING

SEED = 0


class Losses(NamedTuple):
    """P that macro F1 is no less, and that no class's F1 is; and the place of the class that stands worst."""

    macro_p: float
    class_p: float
    worst: int


def compare_classes(baseline: Judged, run: Judged) -> Losses | str:
    """Hold a run's F1 by class against a baseline's, or say why that cannot be.

    Both have judged the same examples. Refuses counts that are not those of the manifest.
    """
    sides = [_counts(each) for each in (baseline, run)]
    for side in sides:
        if isinstance(side, str):
            return side
    old, new = (side for side in sides if not isinstance(side, str))
    names = [[each.name for each in classes_of(side)] for side in (baseline, run)]
    if names[0] != names[1] or (old[..., 2] != new[..., 2]).any():
        return "their classes differ"
    macro_p, p_values = f1_p_values(new, old, seed=SEED)
    drops = class_f1(old.sum(axis=0)) - class_f1(new.sum(axis=0))
    # An answer that changes moves two classes, which are as unlikely: that which lost more.
    worst = min(range(len(drops)), key=lambda place: (p_values[place], -drops[place]))
    return Losses(macro_p, float(p_values[worst]), worst)


def classes_of(run: Judged) -> list[ClassF1]:
    """F1 of a result's classes; none where its answers are no classes."""
    return run.result.metric.classes if run.result.metric else []


def _counts(run: Judged) -> Array | str:
    """What the F1 of a result's classes is made of, [N, C, 3], or why it is not there."""
    counts, classes, metric = run.kept(run.result.name).classes, classes_of(run), run.result.metric
    if metric is None or not classes:
        return f"F1 by class was not measured in {run.name}"
    if counts is None:
        return f"what each example counts for F1 by class was not recorded in {run.name}"
    same = counts.shape[:2] == (metric.examples, len(classes))
    if not same or (abs(class_f1(counts.sum(axis=0)) - [each.value for each in classes]) > ROUNDING).any():
        raise RequestError(f"{run.name}: its scores.npz is not of its manifest's F1 by class; certify the run")
    return counts
