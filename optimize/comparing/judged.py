"""A finished run as comparisons need it: its manifest, and what each example scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from optimize import manifest
from optimize.compared import Side, Timed
from optimize.errors import RequestError
from optimize.finished import read_run
from optimize.manifest import Latency, Manifest, Measurement
from optimize.report.tables import REFERENCE
from optimize.scores import Kept, read_scores


@dataclass(frozen=True)
class Judged:
    """A run whose result was measured; `scores` are by measurement, as far as they were kept."""

    name: str
    record: Manifest
    scores: Mapping[str, Kept]

    @property
    def result(self) -> Measurement:
        """What was measured of the judged model."""
        return self.record.measurements[-1]

    def kept(self, measurement: str) -> Kept:
        """What was kept of a model's score."""
        return self.scores.get(measurement, Kept())


def read_judged(folder: Path, name: str | None = None) -> Judged:
    """Read a run's folder, or an accepted baseline's; refuse one whose result was not measured."""
    record = read_run(folder)
    if not record.measurements:
        raise RequestError(f"{folder / manifest.FILE}: nothing was measured; certify the run")
    for each in record.measurements:
        ratios = [ratio for time in each.latency for ratio in time.speedup.values()]
        if not (each.size.bytes > 0 and all(ratio > 0 for ratio in ratios)):
            raise RequestError(
                f"{folder / manifest.FILE}: '{each.name}' has no bytes, or a speed-up of nothing; run it again"
            )
    return Judged(name or folder.resolve().name, record, read_scores(folder))


def side_of(run: Judged) -> Side:
    """What a comparison shows of a run."""
    record, result = run.record, run.result
    metric, drift = result.metric, result.drift
    return Side(
        name=run.name,
        id=record.id,
        created=record.created,
        head=record.request.head,
        target=record.request.target,
        pipeline=record.request.pipeline,
        model=record.source.id,
        checkpoint=record.source.digest,
        data=record.data["certification"].digest,
        result=result.name,
        outcome=record.verdict.outcome,
        metric=metric.name if metric else None,
        value=metric.value if metric else None,
        reference=metric.reference if metric else None,
        agreement=drift.agreement if drift else None,
        size_bytes=result.size.bytes,
        size_ratio=result.size.ratio,
        latency=[_timed(each, record) for each in result.latency],
    )


def _timed(latency: Latency, record: Manifest) -> Timed:
    references = (REFERENCE, own_reference(record))
    speedup = {name: ratio for name, ratio in latency.speedup.items() if name in references}
    return Timed(shape=latency.shape, p50_ms=latency.p50_ms, speedup=speedup, unreliable=latency.unreliable)


def own_reference(record: Manifest) -> str:
    """The name of the target's own FP32 reference."""
    return f"{record.request.target}-fp32"
