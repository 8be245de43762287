"""Latency by shape: how all runs of every model are spread, on a scale of ratios."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from optimize.interfaces import Array
from optimize.manifest import Manifest
from optimize.measure.shapes import DATA, ON_DEVICE
from optimize.report.html.charts import INK, LINE, Spec, chart, colour_of, rows, words
from optimize.report.html.evidence import Evidence
from optimize.report.html.parts import Chart, Section, Table
from optimize.report.pictures.overview import milliseconds
from optimize.report.tables import at_shape, in_order, latency_rows, percentile_rows

BINS = 48
SHOWN = 0.99
"""The share of a model's runs that a drawing reaches to."""
ROW, HIGH, LABEL = 46, 0.55, 0.78
"""Pixels for each model, and of these the shares below the highest hill and below the middle of its label."""
MEDIANS = "Medians in ms, with the ratio to PyTorch FP32 and the target's FP32"
UNTIMED = "Nothing was timed. Certify the run on a machine that the target runs on."
NOT_KEPT = "How runs are spread is not shown: this run kept percentiles alone. Certify it again to keep every run."


def section(manifest: Manifest, evidence: Evidence) -> Section:
    """A drawing for each shape, then medians and percentiles."""
    charts = [_chart(manifest, evidence, shape) for shape in _shapes(manifest) if _times(manifest, evidence, shape)]
    tables = [
        Table(MEDIANS, latency_rows(manifest.measurements)),
        Table("Percentiles", percentile_rows(manifest.measurements), words=2, folded=True),
    ]
    placed = latency_rows(manifest.measurements, on_device=True)
    if len(placed) > 1:
        tables.insert(1, Table("On the device alone, inputs and outputs in its own memory", placed))
    about = (
        "Every timed run of every model at a batch size x tokens; the line in each hill is the median. Models ran in "
        f"processes of their own, in turns; threads: {manifest.request.threads}. The slowest 1 % is cut off."
    )
    timed = any(each.latency for each in manifest.measurements)
    if not timed:
        return Section("latency", "Latency", about, missing=UNTIMED)
    return Section("latency", "Latency", about, charts, tables, missing="" if charts else NOT_KEPT)


def _shapes(manifest: Manifest) -> list[str]:
    return in_order([each.shape for each in measurement.latency] for measurement in manifest.measurements)


def _times(manifest: Manifest, evidence: Evidence, shape: str) -> dict[str, Array]:
    """Milliseconds of the models that were timed at a shape."""
    names = [each.name for each in manifest.measurements]
    return {name: evidence.runs[name, shape] * 1e3 for name in names if (name, shape) in evidence.runs}


def _chart(manifest: Manifest, evidence: Evidence, shape: str) -> Chart:
    times = _times(manifest, evidence, shape)
    medians = []
    for measurement in manifest.measurements:
        latency = at_shape(measurement, shape)
        if latency and measurement.name in times:
            medians.append(f"{measurement.name} {milliseconds(latency.p50_ms)}")
    title = _title(shape)
    about = f"How long each run took, {title}; medians: {'; '.join(medians)}"
    result = manifest.measurements[-1].name
    return chart(title, about, partial(_spec, hills(times, result)))


def _title(shape: str) -> str:
    place = ", on the device" if shape.endswith(ON_DEVICE) else ""
    name = shape.removesuffix(ON_DEVICE)
    return f"lengths as they occur{place}" if name == DATA else f"{name.replace('x', ' × ')} tokens{place}"


@dataclass(frozen=True)
class Hill:
    """How one model's runs are spread: the outline of a histogram over `base`, at most `HIGH` above it."""

    name: str
    colour: str
    base: int
    median_ms: float
    runs: int
    outline: Sequence[tuple[float, float]]

    @property
    def label(self) -> str:
        """The name with its median."""
        return f"{self.name}, {milliseconds(self.median_ms)}"

    @property
    def middle(self) -> dict[str, object]:
        """What is drawn of the model besides its outline."""
        said = f"{self.name}: median {milliseconds(self.median_ms)} of {self.runs:,} runs"
        place = {"x": self.median_ms, "y": self.base, "top": self.base + HIGH, "above": self.base + LABEL}
        return {**place, "name": self.label, "words": said}


def hills(times: Mapping[str, Array], result: str) -> list[Hill]:
    """The models' hills over common bins, the first on top."""
    import numpy as np

    low = min(float(each.min()) for each in times.values())
    high = max(float(np.quantile(each, SHOWN)) for each in times.values())
    edges = np.geomspace(low, max(high, low * 1.1), BINS + 1)
    found = []
    for place, (name, each) in enumerate(times.items()):
        counts, _ = np.histogram(each, edges)
        heights = HIGH * counts / max(int(counts.max()), 1)
        outline = [(float(left), float(height)) for left, height in zip(edges, [*heights, 0.0], strict=True)]
        base = len(times) - 1 - place
        found.append(Hill(name, colour_of(name, result), base, float(np.median(each)), len(each), outline))
    return found


def _spec(drawn: Sequence[Hill], width: int) -> Spec:
    x: Spec = {"field": "x", "type": "quantitative", "title": "ms a call", "scale": {"type": "log", "nice": False}}
    x["axis"] = {"grid": False, "tickCount": 5}
    y: Spec = {"field": "y", "type": "quantitative", "axis": None, "scale": {"domain": [0, len(drawn)]}}
    middles = rows(*(each.middle for each in drawn))
    label = {"type": "text", "align": "left", "x": 0, "limit": width}
    layers: list[Spec] = [
        {"data": middles, "mark": {"type": "rule", "color": LINE}, "encoding": {"y": y}},
        _outlines(drawn, x, y),
        {
            "data": middles,
            "mark": {"type": "rule", "color": INK, "strokeWidth": 1.5},
            "encoding": {"x": x, "y": y, "y2": {"field": "top"}, "description": words()},
        },
        {"data": middles, "mark": label, "encoding": {"y": {**y, "field": "above"}, "text": {"field": "name"}}},
    ]
    return {"width": width, "height": ROW * len(drawn), "layer": layers}


def _outlines(drawn: Sequence[Hill], x: Spec, y: Spec) -> Spec:
    values = []
    for each in drawn:
        shared = {"name": each.name, "colour": each.colour, "y": each.base}
        values += [{**shared, "x": left, "top": each.base + height} for left, height in each.outline]
    colour = {"field": "colour", "type": "nominal", "scale": None}
    encoding = {"x": x, "y": y, "y2": {"field": "top"}, "color": colour, "detail": {"field": "name"}}
    return {
        "data": rows(*values),
        "mark": {"type": "area", "interpolate": "step-after", "opacity": 0.85},
        "encoding": encoding,
    }
