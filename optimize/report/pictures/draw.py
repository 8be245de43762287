"""Which pictures a run has, and what they are called."""

from __future__ import annotations

import re
from dataclasses import dataclass

from optimize.manifest import Manifest, StageRecord
from optimize.report.facts import fact_rows
from optimize.report.markdown import plain
from optimize.report.pictures.layers import draw_layers
from optimize.report.pictures.overview import draw_overview, milliseconds, points_of
from optimize.report.pictures.sensitivity import draw_sensitivity
from optimize.report.tables import judged_shape, metric_name

OVERVIEW, SENSITIVITY, LAYERS = "overview.png", "sensitivity.png", "layers.png"
FILES = (OVERVIEW, SENSITIVITY, LAYERS)


@dataclass(frozen=True)
class Picture:
    """A PNG beside a page; `alt` says in words what it shows."""

    file: str
    alt: str
    content: bytes

    @property
    def markdown(self) -> str:
        """The link that shows it."""
        alt = re.sub(r"(?<!\\)[\[\]]", r"\\\g<0>", plain(self.alt))
        return f"![{alt}]({self.file})"


def draw(manifest: Manifest) -> list[Picture]:
    """The pictures of a run; one whose numbers were not measured is left out."""
    return list(filter(None, (_overview(manifest), _sensitivity(manifest), _layers(manifest))))


def _overview(manifest: Manifest) -> Picture | None:
    name, shape = metric_name(manifest.measurements), judged_shape(manifest)
    content = draw_overview(manifest, title=f"{_subject(manifest)}: {name} against latency of each model")
    if content is None:
        return None
    models = []
    for point in points_of(manifest):
        models.append(f"{', '.join(point.names)} {point.metric:.4f} at {milliseconds(point.latency_ms)}")
    return Picture(OVERVIEW, f"{name} against median latency at {shape}: {'; '.join(models)}.", content)


def _sensitivity(manifest: Manifest) -> Picture | None:
    record = record_with(manifest, "sensitivity")
    if record is None:
        return None
    rows = fact_rows(record, "sensitivity")
    title = f"{_subject(manifest)}: each group of operators quantized alone ({record.stage})"
    content = draw_sensitivity(rows, title=title)
    if content is None:
        return None
    alt = f"SQNR of the outputs and time saved for each of {len(rows)} groups of operators; the table has the numbers."
    return Picture(SENSITIVITY, alt, content)


def _layers(manifest: Manifest) -> Picture | None:
    record = record_with(manifest, "layers")
    if record is None:
        return None
    rows = fact_rows(record, "layers")
    title = f"{_subject(manifest)}: heads and neurons that each layer keeps ({record.stage})"
    content = draw_layers(rows, title=title)
    if content is None:
        return None
    kept = "; ".join(f"layer {row['layer']} {row['heads']} and {row['neurons']}" for row in rows)
    return Picture(LAYERS, f"Attention heads and FFN neurons kept: {kept}.", content)


def record_with(manifest: Manifest, table: str) -> StageRecord | None:
    """The last stage that states such a table, whose picture is drawn."""
    for record in reversed(manifest.stages):
        if fact_rows(record, table):
            return record
    return None


def _subject(manifest: Manifest) -> str:
    return f"{manifest.source.id}, {manifest.request.head} on {manifest.request.target}"
