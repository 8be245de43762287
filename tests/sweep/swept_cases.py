"""Trials and sweeps as tests need them."""

from __future__ import annotations

from optimize.manifest import ArtifactRecord, Check, Drift, Environment, Measurement, Metric, Size, StageRecord
from optimize.swept import Swept, Trial

MACHINE = Environment(
    cpu="CPU", features=["avx2"], cores=2, memory_bytes=1, gpu=None, system="Linux", versions={"torch": "2"}
)


def trial(name: str, *, drop: float = 0.0, speed: float | None = 2.0, size: float = 0.5, **others: object) -> Trial:
    """A measured point that loses so much, and is so fast and small."""
    metric = Metric(
        name="accuracy",
        value=0.9 - 0.9 * drop,
        reference=0.9,
        drop=0.9 * drop,
        relative_drop=drop,
        interval=(0.0, 0.1),
        confidence=0.95,
        standard_error=0.01,
        examples=100,
    )
    drift = Drift(
        agreement=0.99,
        decisions=100,
        flips=1,
        kl=0.01,
        compared=100,
        max_abs=0.1,
        mean_abs=0.01,
        cosine=0.999,
        padding_max_abs=0.0,
        batch_max_abs=0.0,
    )
    tuned = Measurement(
        name=name,
        artifact_digest="0" * 64,
        metric=metric,
        drift=drift,
        latency=[],
        size=Size(bytes=int(size * 1e6), ratio=size, parameters=1, by_component={}, by_dtype={}),
        load_seconds=0.1,
        peak_memory_bytes=None,
        not_measured={},
    )
    check = Check(name="max_relative_metric_drop", limit=0.01, value=drop, outcome="passed", reason="")
    if drop > 0.01:
        check = check.model_copy(update={"outcome": "failed", "reason": f"{drop} exceeds the limit"})
    artifact = ArtifactRecord(kind="onnx", digest="0" * 64, size_bytes=1)
    stage = StageRecord(stage="export", params={}, facts={}, seconds=1.0, cached=False, key="0" * 64, artifact=artifact)
    known: dict[str, object] = {
        "id": name,
        "model": "m",
        "head": "text-classification",
        "target": "cpu",
        "pipeline": "cpu-static",
        "settings": {},
        "label": name,
        "outcome": "measured",
        "stages": [stage],
        "tuning": tuned,
        "shape": "1x128",
        "speedup": speed,
        "checks": [check],
        "meets_gates": check.outcome == "passed",
        "environment": "here",
    }
    return Trial.model_validate({**known, **others})


def swept(*trials: Trial, **others: object) -> Swept:
    """A finished sweep of such points."""
    known: dict[str, object] = {
        "name": "many",
        "created": "2026-01-01T00:00:00+00:00",
        "finished": True,
        "request": {},
        "prefer": "latency",
        "environments": {each.environment: MACHINE for each in trials},
        "trials": list(trials),
    }
    return Swept.model_validate({**known, **others})
