"""A finished run's folder and manifest in the words that trackers are told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from optimize.compared import Regression
from optimize.errors import printable
from optimize.manifest import Manifest, Measurement
from optimize.report import page, regressions, tables
from optimize.request import words_of
from optimize.tracking.interface import Tracked


def tracked(folder: Path, manifest: Manifest, regression: Regression | None = None) -> Tracked:
    """What a tracker is told of a run, and of what got worse in it, where that is given."""
    return Tracked(
        name=folder.resolve().name,
        created=manifest.created,
        params=dict(_params(manifest)),
        metrics={each.name: dict(_numbers(each)) for each in manifest.measurements},
        tags=dict(_tags(manifest)),
        description=_description(manifest, regression),
        folder=folder,
    )


def _description(manifest: Manifest, regression: Regression | None) -> str:
    """Verdict and limits, what got worse, and the models: the parts that the run's page begins with."""
    models = tables.markdown_table(tables.model_rows(manifest)) if manifest.measurements else ""
    return "\n\n".join(filter(None, (page.title(manifest, regression), regressions.section(regression), models)))


def _params(manifest: Manifest) -> Iterator[tuple[str, str]]:
    for option, _ in words_of(manifest.request, chosen=bool(manifest.candidates)):
        yield option.name, printable(str(getattr(manifest.request, option.name)))
    for record in manifest.stages:
        for name, value in record.params.items():
            yield f"{record.stage}.{name}", printable(str(value))
    for name, value in manifest.request.gates.items():
        yield f"gates.{name}", str(value)


def _tags(manifest: Manifest) -> Iterator[tuple[str, str]]:
    yield "verdict", manifest.verdict.outcome
    for check in manifest.verdict.checks:
        yield f"limit.{check.name}", check.outcome
    yield "run", manifest.id
    yield "checkpoint", manifest.source.digest
    yield "model", manifest.stages[-1].artifact.digest
    yield "cpu", printable(manifest.environment.cpu)
    yield "gpu", printable(manifest.environment.gpu or "none")
    for library, version in manifest.environment.versions.items():
        yield f"version.{library}", version


def _numbers(measured: Measurement) -> Iterator[tuple[str, float]]:
    yield "size_bytes", measured.size.bytes
    yield "size_ratio", measured.size.ratio
    yield from _known(measured, "load_seconds", "peak_memory_bytes", "device_memory_bytes")
    if metric := measured.metric:
        yield metric.name, metric.value
        yield f"{metric.name}_drop", metric.drop
        yield from metric.others.items()
    if measured.drift:
        yield from _known(measured.drift, "agreement", "kl", "cosine", "max_abs")
    for latency in measured.latency:
        yield f"p50_ms/{latency.shape}", latency.p50_ms
        yield from ((f"speedup/{latency.shape}/{over}", ratio) for over, ratio in latency.speedup.items())


def _known(record: object, *names: str) -> Iterator[tuple[str, float]]:
    values: Mapping[str, float | None] = {name: getattr(record, name) for name in names}
    for name, value in values.items():
        if value is not None:
            yield name, value
