"""Size by component and by data type, and what each stage took away."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from optimize.manifest import Manifest, Size
from optimize.report.html.charts import HUES, NARROW, Spec, chart, rows, words
from optimize.report.html.parts import Chart, Section, Table
from optimize.report.tables import MISSING, Rows, in_order, megabytes, weight_rows

BAR = 26
"""Pixels for each model."""
Parts = Callable[[Size], Mapping[str, int]]


def section(manifest: Manifest) -> Section:
    """Two drawings, the differences from model to model, and all numbers."""
    charts = [
        _chart(manifest, "By component", lambda size: size.by_component),
        _chart(manifest, "By data type", lambda size: size.by_dtype),
    ]
    tables = [
        Table("What each step changed", _changes(manifest)),
        Table("Size, operations and memory", weight_rows(manifest.measurements), folded=True),
    ]
    about = "Bytes of the model's tensors, each model in the order in which it was made."
    return Section("size", "Size", about, charts, tables)


def _chart(manifest: Manifest, title: str, parts: Parts) -> Chart:
    said = []
    for each in manifest.measurements:
        held = ", ".join(f"{name} {megabytes(count)}" for name, count in parts(each.size).items())
        said.append(f"{each.name}: {held}")
    return chart(title, f"{title}: {'; '.join(said)}", lambda width: _spec(manifest, parts, width))


def _spec(manifest: Manifest, parts: Parts, width: int) -> Spec:
    names = in_order(parts(each.size) for each in manifest.measurements)
    values = []
    for each in manifest.measurements:
        for place, name in enumerate(names):
            count = parts(each.size).get(name, 0)
            said = f"{each.name}: {name} {megabytes(count)}"
            values.append({"model": each.name, "part": name, "bytes": count / 1e6, "place": place, "words": said})
    colours = {"domain": names, "range": [HUES[place % len(HUES)] for place in range(len(names))]}
    models = [each.name for each in manifest.measurements]
    encoding = {
        "y": {
            "field": "model",
            "type": "nominal",
            "sort": models,
            "title": None,
            "axis": {"ticks": False, "domain": False, "labelLimit": 110 if width == NARROW else 150},
        },
        "x": {"field": "bytes", "type": "quantitative", "title": "MB", "axis": {"tickCount": 4}},
        "color": {"field": "part", "type": "nominal", "title": None, "scale": colours},
        "order": {"field": "place"},
        "description": words(),
    }
    mark = {"type": "bar", "cornerRadiusEnd": 0, "height": {"band": 0.7}, "stroke": "var(--page)", "strokeWidth": 0.5}
    height = BAR * len(models) + 10
    return {"width": width, "height": height, "data": rows(*values), "mark": mark, "encoding": encoding}


def _changes(manifest: Manifest) -> Rows:
    """Bytes of each model's parts, and in brackets how they differ from those of the model before."""
    sizes = [each.size for each in manifest.measurements]
    parts = in_order(size.by_component for size in sizes)
    table: Rows = [("model", "all", *parts)]
    before: Size | None = None
    for each in manifest.measurements:
        cells = [_cell(each.size.bytes, before.bytes if before else None)]
        for part in parts:
            known = before.by_component.get(part, 0) if before else None
            cells.append(_cell(each.size.by_component.get(part, 0), known))
        table.append((each.name, *cells))
        before = each.size
    return table


def _cell(count: int, before: int | None) -> str:
    if not count and not before:
        return MISSING
    if before is None or before == count:
        return megabytes(count)
    change = count - before
    return f"{megabytes(count)} ({'−' if change < 0 else '+'}{megabytes(abs(change))})"
