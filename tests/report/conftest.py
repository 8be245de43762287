"""A manifest made by hand, for what only reads manifests."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from optimize.manifest import Manifest

DIGEST = "0123456789abcdef" * 4
GATES = {"max_relative_metric_drop": 0.01, "min_speedup": 1.5, "speedup_over": "pytorch-fp32", "speedup_shape": "1x128"}

REQUEST: dict[str, Any] = {
    "target": "cpu",
    "head": "text-classification",
    "model": "someone/distilbert-sst2",
    "revision": "abc123",
    "data": "nyu-mll/glue",
    "data_config": "sst2",
    "data_revision": "f00dcafe",
    "columns": {"text": "sentence"},
    "certify_on": "validation",
    "examples": 1000,
    "calibration_examples": 64,
    "tuning_examples": 0,
    "training_examples": 500,
    "max_tokens": 128,
    "shapes": ["1x16", "1x128"],
    "threads": 2,
    "pipeline": "cpu",
    "stages": [{"export": {"opset": 17}}],
    "gates": GATES,
    "seed": 3,
}
ENVIRONMENT: dict[str, Any] = {
    "cpu": "Imagined CPU",
    "features": ["avx2"],
    "cores": 2,
    "memory_bytes": 8 * 2**30,
    "gpu": None,
    "system": "Linux x86_64, Python 3.11.7",
    "versions": {"onnx": "1.23.2"},
}
SOURCE: dict[str, Any] = {
    "kind": "hub",
    "id": "someone/distilbert-sst2",
    "revision": "abc123",
    "digest": DIGEST,
    "stored_as": "float16",
    "geometry": {"n_layers": 6, "dim": 768},
}


def metric(value: float, **changes: Any) -> dict[str, Any]:
    """An accuracy on 1,000 examples where FP32 scores 0.9."""
    drop = 0.9 - value
    return {
        "name": "accuracy",
        "value": value,
        "reference": 0.9,
        "drop": drop,
        "relative_drop": drop / 0.9,
        "interval": (drop - 0.01, drop + 0.01),
        "confidence": 0.95,
        "standard_error": 0.005,
        "examples": 1000,
        "p_value": 0.25,
        "others": {"macro_f1": value - 0.1},
        **changes,
    }


def drift(agreement: float) -> dict[str, Any]:
    numbers = {"kl": 0.001, "max_abs": 0.5, "mean_abs": 0.01, "padding_max_abs": 0.0, "batch_max_abs": 0.25}
    flips = round(1000 * (1 - agreement))
    return {"agreement": agreement, "flips": flips, "decisions": 1000, "cosine": None, "compared": 1000, **numbers}


def latency(shape: str, p50_ms: float, **speedup: float) -> dict[str, Any]:
    """Twenty runs, which show a p90 but no p99."""
    return {
        "shape": shape,
        "p50_ms": p50_ms,
        "p90_ms": 2 * p50_ms,
        "p99_ms": None,
        "runs": 20,
        "speedup": {name.replace("_", "-"): ratio for name, ratio in speedup.items()},
        "speedup_interval": {name.replace("_", "-"): (ratio - 0.1, ratio + 0.1) for name, ratio in speedup.items()},
    }


def measurement(name: str, score: float, size_bytes: int, timings: list[dict[str, Any]]) -> dict[str, Any]:
    half = size_bytes // 2
    return {
        "name": name,
        "artifact_digest": hashlib.sha256(name.encode()).hexdigest(),
        "metric": metric(score),
        "drift": drift(0.99 if score < 0.9 else 1.0),
        "latency": timings,
        "size": {
            "bytes": size_bytes,
            "ratio": size_bytes / 200_000_000,
            "by_component": {"ffn": half, "embedding": size_bytes - half},
            "by_dtype": {"float32": size_bytes},
        },
        "load_seconds": 0.5,
        "peak_memory_bytes": 3 * size_bytes,
        "not_measured": {},
    }


STAGES: list[dict[str, Any]] = [
    {
        "stage": name,
        "params": params,
        "facts": facts,
        "seconds": 12.34,
        "cached": cached,
        "key": "f" * 64,
        "artifact": {"kind": "onnx", "digest": DIGEST[::-1], "size_bytes": 60_000_000},
    }
    for name, params, facts, cached in (
        ("export", {"opset": 17}, {"max_difference": 1.5e-7}, True),
        ("quantize_dynamic", {"per_channel": True}, {"quantized_matmuls": 36}, False),
    )
]


def sensitivity_row(group: str, sqnr_db: float = 30.0, saved_us: float = 250.0, form: str = "int8") -> dict[str, Any]:
    """What a stage states about one group of operators."""
    return {"group": group, "sqnr_db": sqnr_db, "divergence": 0.00012, "saved_us": saved_us, "form": form}


GROUPS = ("attention.q_lin+k_lin+v_lin", "attention.out_lin", "ffn.lin1", "ffn.lin2")
SENSITIVITY: list[dict[str, Any]] = [
    sensitivity_row("word_embeddings", 41.0, 0.0),
    *(sensitivity_row(f"layer.{layer}.{name}", 30.0 + layer) for layer in range(6) for name in GROUPS),
    sensitivity_row("classifier", 9.5, -4.0, "float"),
]
REVERTED: list[dict[str, Any]] = [{"group": "classifier", "why": "the budget", "lost_us": -4.0}]


def stages_with(**tables: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The stages, of which the last states these tables besides its single value."""
    *others, last = STAGES
    return [*others, {**last, "facts": {**last["facts"], **tables}}]


def document(**changes: Any) -> dict[str, Any]:
    """A whole manifest as JSON would hold it; `changes` replace its top-level fields."""
    slow, fast = latency("1x128", 30.0, pytorch_fp32=1.0), latency("1x128", 10.0, pytorch_fp32=3.0, cpu_fp32=2.5)
    check = {"name": "min_speedup", "limit": 1.5, "value": 3.0, "outcome": "passed", "reason": "speed-up 3.00x"}
    split = {"count": 1000, "digest": DIGEST, "origin": "validation", "truncated": 7}
    return {
        "schema": 1,
        "id": "deadbeef",
        "created": "2026-01-02T03:04:05+00:00",
        "request": REQUEST,
        "environment": ENVIRONMENT,
        "source": SOURCE,
        "data": {"calibration": {**split, "count": 64, "origin": "train"}, "certification": split},
        "stages": STAGES,
        "measurements": [
            measurement("pytorch-fp32", 0.9, 200_000_000, [slow]),
            measurement("quantize_dynamic", 0.895, 60_000_000, [fast]),
        ],
        "verdict": {"outcome": "passed", "checks": [check]},
        **changes,
    }


def make_manifest(**changes: Any) -> Manifest:
    return Manifest.model_validate(document(**changes))


@pytest.fixture
def manifest() -> Manifest:
    """A passed run of INT8 on the CPU."""
    return make_manifest()


@pytest.fixture
def built_only() -> Manifest:
    return make_manifest(measurements=[], verdict={"outcome": "unverified", "checks": []})


@pytest.fixture
def no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever opens a file fails."""
    # Imported now, because an import opens files too.
    import huggingface_hub.repocard_data  # noqa: F401
    import yaml  # noqa: F401

    def refuse(*arguments: Any, **_: Any) -> None:
        raise AssertionError(f"opened {arguments[0]}")

    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr("io.open", refuse)
