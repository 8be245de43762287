"""Whether confidences can be believed, before and after: reliability curves and the expected calibration error.

Bins are ten of equal width (Guo et al., 2017): of the decisions in a bin, the share that is right beside the mean
confidence. The error is the mean gap between the two, by how many decisions a bin has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from optimize.examples import Answer
from optimize.report.html.charts import MUTED, ORIGINAL, RESULT, Spec, chart, rows, words
from optimize.report.html.evidence import Evidence
from optimize.report.html.parts import Section, Table
from optimize.report.tables import Rows

BINS = 10
NO_CLASSES = "Answers are no classes with a probability each, so there is nothing to calibrate."


@dataclass(frozen=True)
class Bin:
    """Decisions of about one confidence."""

    decisions: int
    confidence: float
    right: float


def section(evidence: Evidence, result: str) -> Section:
    """Both models' curves and errors."""
    sides = {
        "original": bins_of([each.reference for each in evidence.examples]),
        result: bins_of([each.result for each in evidence.examples]),
    }
    about = (
        "Of the decisions that a model was so sure of, the share that is right. On the dashed line, confidence is what "
        "it says; below it, the model is surer than it should be. ECE, the expected calibration error, is the mean "
        "distance from the line."
    )
    if not sides["original"]:
        missing = NO_CLASSES if evidence.examples else ""
        return Section("calibration", "Calibration", missing=missing)
    title = "Right answers by confidence"
    said = "; ".join(f"{name} has an ECE of {ece(bins):.4f}" for name, bins in sides.items())
    drawn = chart(title, f"{title}: {said}", lambda width: _spec(sides, width))
    tables = [Table("Calibration error", _errors(sides)), Table("Bins", _rows(sides), folded=True, words=2)]
    return Section("calibration", "Calibration", about, [drawn], tables)


def bins_of(answers: Sequence[Answer]) -> list[Bin]:
    """The bins that have decisions, the least sure ones first."""
    held: dict[int, list[tuple[float, bool]]] = {}
    for answer in answers:
        for sure, right in answer.decisions:
            held.setdefault(min(int(sure * BINS), BINS - 1), []).append((sure, right))
    found = []
    for _, decisions in sorted(held.items()):
        sure, right = (sum(side) / len(decisions) for side in zip(*decisions, strict=True))
        found.append(Bin(len(decisions), sure, right))
    return found


def ece(bins: Sequence[Bin]) -> float:
    """The expected calibration error."""
    total = sum(each.decisions for each in bins)
    return sum(each.decisions * abs(each.confidence - each.right) for each in bins) / total


def _errors(sides: dict[str, list[Bin]]) -> Rows:
    table: Rows = [("model", "ECE", "mean confidence", "right", "decisions")]
    for name, bins in sides.items():
        total = sum(each.decisions for each in bins)
        sure = sum(each.decisions * each.confidence for each in bins) / total
        right = sum(each.decisions * each.right for each in bins) / total
        table.append((name, f"{ece(bins):.4f}", f"{sure:.4f}", f"{right:.4f}", f"{total:,}"))
    return table


def _rows(sides: dict[str, list[Bin]]) -> Rows:
    table: Rows = [("model", "confidence", "right", "decisions")]
    for name, bins in sides.items():
        for each in bins:
            table.append((name, f"{each.confidence:.3f}", f"{each.right:.3f}", f"{each.decisions:,}"))
    return table


def _spec(sides: dict[str, list[Bin]], width: int) -> Spec:
    values = []
    for name, bins in sides.items():
        for each in bins:
            said = f"{name}: {each.right:.1%} right of {each.decisions:,} decisions at {each.confidence:.1%} confidence"
            point = {"confidence": each.confidence, "right": each.right, "count": each.decisions}
            values.append({**point, "model": name, "words": said})
    colours = {"domain": list(sides), "range": [ORIGINAL, RESULT]}
    x = {"field": "confidence", "type": "quantitative", "title": "confidence", "scale": {"domain": [0, 1]}}
    y = {"field": "right", "type": "quantitative", "title": "right", "scale": {"domain": [0, 1]}}
    x["axis"] = y["axis"] = {"format": "~%", "tickCount": 5}
    shared = {"x": x, "y": y}
    colour = {"field": "model", "type": "nominal", "title": None, "scale": colours}
    size = {"field": "count", "type": "quantitative", "legend": None, "scale": {"range": [24, 180]}}
    believed = rows({"confidence": 0, "right": 0}, {"confidence": 1, "right": 1})
    layers: list[Spec] = [
        {"data": believed, "mark": {"type": "line", "strokeDash": [4, 3], "strokeWidth": 1, "color": MUTED}},
        {"data": rows(*values), "mark": {"type": "line", "strokeWidth": 2}, "encoding": {"color": colour}},
        {
            "data": rows(*values),
            "mark": {"type": "circle", "opacity": 0.9},
            "encoding": {"color": colour, "size": size, "description": words()},
        },
    ]
    return {"width": width, "height": 260, "encoding": shared, "layer": layers}
