"""How much was lost at each budget that a search tried, and how learning won it back."""

from __future__ import annotations

from optimize.manifest import Manifest
from optimize.report.html.charts import MUTED, RESULT, Spec, chart, rows, words
from optimize.report.html.parts import Section, Table
from optimize.report.search import TITLE, about, probe_rows

HEIGHT = 240


def section(manifest: Manifest) -> Section:
    """The picture of all tries, and their table; empty where nothing was searched."""
    if not manifest.search:
        return Section("search", TITLE)
    title = "Relative drop against what is kept of the encoder"
    said = "; ".join(
        f"{probe.budget:.0%} kept, {probe.minutes:.1f} min learnt: {probe.relative_drop:+.2%}"
        for probe in manifest.search
    )
    picture = chart(title, f"{title}: {said}", lambda width: _spec(manifest, width), wide=True)
    return Section("search", TITLE, about(manifest), [picture], [Table("Every try", probe_rows(manifest))])


def _spec(manifest: Manifest, width: int) -> Spec:
    values = [
        {
            "kept": probe.budget,
            "drop": probe.relative_drop,
            "learnt": f"{probe.minutes:.1f} min",
            "words": f"{probe.budget:.0%} kept, {probe.minutes:.1f} min learnt: {probe.relative_drop:+.2%}",
        }
        for probe in manifest.search
    ]
    x: Spec = {
        "field": "kept",
        "type": "quantitative",
        "title": "share of the encoder kept",
        "axis": {"format": ".0%", "grid": False, "tickCount": 6},
        "scale": {"zero": False, "padding": 30},
    }
    y: Spec = {"field": "drop", "type": "quantitative", "title": "relative drop on tuning data"}
    y |= {"axis": {"format": "+.1%"}, "scale": {"padding": 16}}
    shared = {"x": x, "y": y, "description": words()}
    marks = [
        {"mark": {"type": "circle", "size": 110, "opacity": 1, "color": RESULT}},
        {"mark": {"type": "text", "dy": -12}, "encoding": {"text": {"field": "learnt"}}},
    ]
    layers: list[Spec] = [{"data": rows(*values), "encoding": shared, "layer": marks}]
    if (limit := manifest.request.gates.get("max_relative_metric_drop")) is not None:
        line = {"type": "rule", "strokeDash": [4, 3], "color": MUTED}
        encoding = {"y": {**y, "field": "limit"}, "description": words()}
        layers.append(
            {"data": rows({"limit": limit, "words": f"limit: {limit:.2%}"}), "mark": line, "encoding": encoding}
        )
    return {"width": width, "height": HEIGHT, "layer": layers}
