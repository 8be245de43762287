"""What stages state of the layers: how sensitive each is to INT8, and what pruning left of it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from optimize.manifest import Manifest, StageRecord
from optimize.report.facts import FactRow, fact_rows, fact_tables
from optimize.report.html.charts import HUES, LINE, RESULT, Spec, chart, rows, words
from optimize.report.html.parts import Chart, Section, Table
from optimize.report.pictures.draw import record_with
from optimize.report.pictures.sensitivity import is_measured, kind_of

BAR = 15
KINDS = ("attention input", "attention output", "FFN in", "FFN out", "embedding", "head")
PANELS = (("heads", "Attention heads kept"), ("neurons", "FFN neurons kept"))
LONG = 12
"""Rows above which a table is folded."""


def section(manifest: Manifest) -> Section:
    """The drawings of the last stages that state such tables, and all tables of all stages."""
    charts = [*_sensitivity(record_with(manifest, "sensitivity")), *_kept(record_with(manifest, "layers"))]
    tables = []
    for record in manifest.stages:
        for each in fact_tables(record):
            tables.append(Table(each.heading, each.rows, each.about, folded=len(each.rows) > LONG + 1))
    about = "What the stages state of their work, layer by layer."
    return Section("layers", "Sensitivity and layers", about, charts, tables)


def _sensitivity(record: StageRecord | None) -> list[Chart]:
    measured = list(filter(is_measured, fact_rows(record, "sensitivity"))) if record else []
    if record is None or not measured:
        return []
    about = (
        f"Each of {len(measured)} groups of operators quantized alone ({record.stage}): the signal-to-noise ratio that "
        "it leaves of the outputs, in dB. The shorter a bar, the more its group costs; hollow ones were left in float"
    )
    return [chart("Sensitivity to INT8", about, lambda width: _bars(measured, width), wide=True)]


def _bars(measured: Sequence[FactRow], width: int) -> Spec:
    values = []
    for row in measured:
        in_float = row.get("form") == "float"
        group, ratio = str(row["group"]), float(row["sqnr_db"])
        said = f"{group}: {ratio:.1f} dB{', left in float' if in_float else ''}"
        values.append(
            {"group": group, "ratio": ratio, "kind": kind_of(group), "fill": 0.0 if in_float else 1.0, "words": said}
        )
    names = [each["group"] for each in values]
    kinds = [kind for kind in KINDS if any(each["kind"] == kind for each in values)]
    colours = {"domain": kinds, "range": [HUES[KINDS.index(kind)] for kind in kinds]}
    encoding = {
        "y": {
            "field": "group",
            "type": "nominal",
            "sort": names,
            "title": None,
            "axis": {"ticks": False, "domain": False, "labelOverlap": False},
        },
        "x": {"field": "ratio", "type": "quantitative", "title": "dB, higher is better", "axis": {"tickCount": 5}},
        "fillOpacity": {"field": "fill", "type": "quantitative", "scale": None},
        "fill": {"field": "kind", "type": "nominal", "title": None, "scale": colours},
        "stroke": {"field": "kind", "type": "nominal", "title": None, "scale": colours, "legend": None},
        "description": words(),
    }
    mark = {"type": "bar", "height": {"band": 0.72}, "strokeWidth": 1}
    return {"width": width, "height": BAR * len(names), "data": rows(*values), "mark": mark, "encoding": encoding}


def _kept(record: StageRecord | None) -> list[Chart]:
    counted = []
    for row in fact_rows(record, "layers") if record else []:
        if {"heads", "heads_before", "neurons", "neurons_before"} <= set(row):
            counted.append(row)
    if not counted:
        return []
    found = []
    for name, title in PANELS:
        said = "; ".join(_said(row, place, name) for place, row in enumerate(counted))
        found.append(chart(title, f"{title}: {said}", partial(_panel, counted, name)))
    return found


def _said(row: FactRow, place: int, name: str) -> str:
    return f"layer {row.get('layer', place)}: {row[name]:,} of {row[f'{name}_before']:,}"


def _panel(counted: Sequence[FactRow], name: str, width: int) -> Spec:
    values = []
    for place, row in enumerate(counted):
        kept, before = float(row[name]), float(row[f"{name}_before"])
        layer = f"layer {row.get('layer', place)}"
        values.append({"layer": layer, "kept": kept, "before": before, "words": _said(row, place, name)})
    y = {"field": "layer", "type": "nominal", "title": None, "sort": None, "axis": {"ticks": False, "domain": False}}
    mark = {"type": "bar", "height": {"band": 0.72}}
    layers: list[Spec] = []
    for field, colour in (("before", LINE), ("kept", RESULT)):
        x = {"field": field, "type": "quantitative", "title": None, "axis": {"tickCount": 4}}
        layers.append({"mark": {**mark, "color": colour}, "encoding": {"x": x, "description": words()}})
    height = 22 * len(counted)
    return {"width": width, "height": height, "data": rows(*values), "encoding": {"y": y}, "layer": layers}
