"""Where answers changed: by the length of the text, by the right class, and by how sure the original was."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from optimize.examples import Example
from optimize.manifest import Manifest
from optimize.report.html.charts import INK, RESULT, Spec, chart, rows, words
from optimize.report.html.evidence import Evidence
from optimize.report.html.parts import Chart, Section, Table
from optimize.report.tables import Rows, drift_rows

BAR = 24
LENGTHS = 5
"""Groups of texts by length, with about as many texts in each."""
CERTAINTIES = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
MOST_CLASSES = 12
Z = 1.96
"""Of an interval at 95 %."""
NOT_KEPT = (
    "Where answers changed is not shown: this run kept no answers in words. It was made by an earlier version, or its "
    "head has no words for its answers."
)
NUMBERS = "Answers are numbers, of which none flips: the examples below are those that moved most."


@dataclass(frozen=True)
class Group:
    """Examples that have something in common, and how many of them were answered otherwise."""

    name: str
    examples: int
    changed: int

    @property
    def share(self) -> float:
        """Of the answers that changed."""
        return self.changed / self.examples

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's, at 95 %."""
        count, share = self.examples, self.share
        middle = (share + Z**2 / (2 * count)) / (1 + Z**2 / count)
        half = Z * math.sqrt(share * (1 - share) / count + Z**2 / (4 * count**2)) / (1 + Z**2 / count)
        return max(0.0, middle - half), min(1.0, middle + half)


def section(manifest: Manifest, evidence: Evidence, *, numbers: bool) -> Section:
    """A drawing for each way to group the examples; the table of all models."""
    tables = [Table("How far outputs moved from the original's", drift_rows(manifest.measurements))]
    about = (
        "The share of examples to which the result gives another answer than the original, right or wrong; the lines "
        "are intervals at 95 %."
    )
    missing = NUMBERS if numbers else "" if evidence.examples else NOT_KEPT
    groups = [] if missing else _ways(evidence.examples)
    charts = []
    for title, found in groups:
        charts.append(_chart(title, found))
        tables.append(Table(title, _rows(found), folded=True))
    return Section("drift", "Where answers changed", about if charts else "", charts, tables, missing)


def _ways(examples: Sequence[Example]) -> list[tuple[str, list[Group]]]:
    """The ways to group them in which there is more than one group."""
    ways = [
        ("By length in tokens", by_length(examples)),
        ("By the right class", by_class(examples)),
        ("By the original's confidence", by_confidence(examples)),
    ]
    return [(title, groups) for title, groups in ways if len(groups) > 1]


def by_length(examples: Sequence[Example]) -> list[Group]:
    """Groups of about equally many texts."""
    lengths = sorted(each.tokens for each in examples)
    edges = sorted({lengths[(len(lengths) - 1) * step // LENGTHS] for step in range(1, LENGTHS)} | {lengths[-1]})
    found = []
    for low, high in pairwise([lengths[0] - 1, *edges]):
        name = f"{low + 1} to {high}" if high > low + 1 else f"{high}"
        found += _group(name, [each for each in examples if low < each.tokens <= high])
    return found


def by_class(examples: Sequence[Example]) -> list[Group]:
    """Groups by the right answer, where few answers are all there are; the most frequent first."""
    golds: dict[str, int] = {}
    for each in examples:
        if each.gold is None or not each.reference.decisions:
            return []
        golds[each.gold] = golds.get(each.gold, 0) + 1
    if len(golds) > MOST_CLASSES:
        return []
    found = []
    for name in sorted(golds, key=lambda gold: -golds[gold]):
        found += _group(name, [each for each in examples if each.gold == name])
    return found


def by_confidence(examples: Sequence[Example]) -> list[Group]:
    """Groups by how sure the original was of its answer."""
    found = []
    for low, high in pairwise(CERTAINTIES):
        found += _group(f"{low:g} to {high:g}", [each for each in examples if _is_between(each, low, high)])
    return found


def _is_between(example: Example, low: float, high: float) -> bool:
    """Whether the original was so sure; at the upper end itself only where nothing is above it."""
    sure = example.reference.confidence
    return sure is not None and low <= sure and (sure < high or sure == high == CERTAINTIES[-1])


def _group(name: str, chosen: Sequence[Example]) -> list[Group]:
    """The group of these examples, if there are any."""
    return [Group(name, len(chosen), sum(not each.same for each in chosen))] if chosen else []


def _rows(groups: Sequence[Group]) -> Rows:
    table: Rows = [("group", "examples", "changed", "share", "interval")]
    for each in groups:
        low, high = each.interval
        table.append(
            (each.name, f"{each.examples:,}", f"{each.changed:,}", f"{each.share:.1%}", f"{low:.1%} to {high:.1%}")
        )
    return table


def _chart(title: str, groups: Sequence[Group]) -> Chart:
    said = "; ".join(f"{each.name}: {each.changed} of {each.examples}" for each in groups)
    return chart(title, f"Answers that changed. {title}: {said}", lambda width: _spec(groups, width))


def _spec(groups: Sequence[Group], width: int) -> Spec:
    values = []
    for each in groups:
        low, high = each.interval
        said = f"{each.name}: {each.changed:,} of {each.examples:,} answers changed ({each.share:.1%})"
        values.append({"name": each.name, "share": each.share, "low": low, "high": high, "words": said})
    x = {"type": "quantitative", "title": "changed", "axis": {"format": "~%", "tickCount": 4}}
    y = {"field": "name", "type": "nominal", "sort": None, "title": None, "axis": {"ticks": False, "domain": False}}
    layers: list[Spec] = [
        {"mark": {"type": "bar", "color": RESULT, "height": {"band": 0.7}}, "encoding": {"x": {**x, "field": "share"}}},
        {
            "mark": {"type": "rule", "color": INK, "opacity": 0.55},
            "encoding": {"x": {**x, "field": "low"}, "x2": {"field": "high"}},
        },
    ]
    shared = {"y": y, "description": words()}
    return {"width": width, "height": BAR * len(groups), "data": rows(*values), "encoding": shared, "layer": layers}
