"""Accuracy against latency: each model, and the limits that the result must meet."""

from __future__ import annotations

from collections.abc import Sequence

from optimize.manifest import Manifest
from optimize.report.candidates import candidate_rows
from optimize.report.html.charts import INK, MUTED, Spec, chart, colour_of, rows, words
from optimize.report.html.parts import Section, Table, from_markdown
from optimize.report.pictures.overview import Point, least_metric, milliseconds, most_latency_ms, points_of
from optimize.report.remarks import remarks
from optimize.report.tables import REFERENCE, judged_shape, megabytes, metric_name, model_rows

HEIGHT = 280
LIFTS = (18, -13, 32, -27)
"""Pixels from a point down to its name: neighbours have their names at different heights."""


def section(manifest: Manifest) -> Section:
    """The picture of all models, and their table."""
    points, shape = points_of(manifest), judged_shape(manifest)
    metric = metric_name(manifest.measurements)
    title = f"{metric} against median latency at {shape}"
    charts = []
    if points:
        charts.append(chart(title, _alt(title, points), lambda width: _spec(manifest, points, width), wide=True))
    about = (
        "Up and to the left is better. Lines around a point are the interval of the loss; dashed lines are the limits "
        "that the result must meet. The original is the checkpoint in PyTorch with 32-bit floats."
    )
    missing = "" if points else "No model has both an accuracy and a latency at this shape."
    tables = [Table("Every model", model_rows(manifest))]
    if manifest.candidates:
        tried = candidate_rows(manifest)
        tables.append(Table("Candidates, compared on tuning data", tried, words=len(tried[0])))
    notes = [from_markdown(line) for line in remarks(manifest)]
    return Section("overview", "Accuracy against latency", about, charts, tables, missing, notes)


def _alt(title: str, points: Sequence[Point]) -> str:
    return f"{title}: {'; '.join(_said(point) for point in points)}"


def _said(point: Point) -> str:
    faster = f", {point.speedup:.2f} times as fast as {REFERENCE}" if point.speedup is not None else ""
    size = megabytes(point.size_bytes)
    return f"{', '.join(point.names)}: {point.metric:.4f} at {milliseconds(point.latency_ms)}{faster}, {size}"


def _spec(manifest: Manifest, points: Sequence[Point], width: int) -> Spec:
    result = manifest.measurements[-1].name
    values = []
    for place, point in enumerate(sorted(points, key=lambda each: each.latency_ms)):
        name = result if result in point.names else point.names[0]
        values.append(
            {
                "latency": point.latency_ms,
                "metric": point.metric,
                "low": point.interval[0],
                "high": point.interval[1],
                "name": name,
                "colour": colour_of(name, result),
                "words": _said(point),
                "lift": LIFTS[place % len(LIFTS)],
            }
        )
    x = {"field": "latency", "type": "quantitative", "title": "median latency, ms", "scale": _scale(points, width)}
    y = {"type": "quantitative", "title": metric_name(manifest.measurements), "scale": _heights(manifest, points)}
    x["axis"], y["axis"] = {"grid": False, "tickCount": 6}, {"tickCount": 5}
    colour = {"field": "colour", "type": "nominal", "scale": None}
    marks = [
        {
            "mark": {"type": "rule", "strokeWidth": 1.5},
            "encoding": {"y": {**y, "field": "low"}, "y2": {"field": "high"}},
        },
        {"mark": {"type": "circle", "size": 130, "opacity": 1}, "encoding": {"y": {**y, "field": "metric"}}},
        {
            "mark": {"type": "text", "dy": {"expr": "datum.lift"}, "align": "center", "limit": 150},
            "encoding": {"y": {**y, "field": "metric"}, "text": {"field": "name"}, "color": {"value": INK}},
        },
    ]
    shared = {"x": x, "color": colour, "description": words()}
    models: Spec = {"data": rows(*values), "encoding": shared, "layer": marks}
    return {"width": width, "height": HEIGHT, "layer": [models, *_limits(manifest, y)]}


def _scale(points: Sequence[Point], width: int) -> Spec:
    """Room at both ends for names, which are centred at their points."""
    times = [point.latency_ms for point in points]
    room = 1.0 + 0.35 * (660 / width) ** 0.5 * max(max(times) / min(times) - 1.0, 0.2) ** 0.5
    return {"type": "log", "domain": [min(times) / room, max(times) * room], "nice": False}


def _heights(manifest: Manifest, points: Sequence[Point]) -> Spec:
    """Room below and above all intervals and the limit."""
    ends = [end for point in points for end in point.interval]
    least = least_metric(manifest)
    low, high = min([*ends, *([] if least is None else [least])]), max(ends)
    room = 0.12 * (high - low) or 0.01
    return {"domain": [low - room, high + room], "nice": False}


def _limits(manifest: Manifest, y: Spec) -> list[Spec]:
    """Dashed lines at the limits on accuracy and speed."""
    dashed = {"type": "rule", "strokeDash": [4, 3], "color": MUTED}
    found: list[Spec] = []
    metric, latency = least_metric(manifest), most_latency_ms(manifest)
    if metric is not None:
        said = f"limit: at least {metric:.4f}"
        encoding = {"y": {**y, "field": "least"}, "description": words()}
        found.append({"data": rows({"least": metric, "words": said}), "mark": dashed, "encoding": encoding})
    if latency is not None:
        said = f"limit: at most {milliseconds(latency)}"
        encoding = {"x": {"field": "most", "type": "quantitative"}, "description": words()}
        found.append({"data": rows({"most": latency, "words": said}), "mark": dashed, "encoding": encoding})
    return found
