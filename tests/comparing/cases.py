"""Run folders made by hand: a manifest and what each example scored, without a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from report.conftest import REQUEST, document, latency, measurement

from optimize import manifest
from optimize.comparing.judged import Judged
from optimize.evaluate.classes import compare_classes
from optimize.heads._metrics import counts_of
from optimize.manifest import Manifest
from optimize.scores import Kept, write_kept

COUNT = 1000
MODELS = ("pytorch-fp32", "cpu-fp32", "export", "quantize_dynamic")
SIZES = {"export": 200_000_000, "quantize_dynamic": 60_000_000}
TIMES = {"pytorch-fp32": 30.0, "cpu-fp32": 20.0, "export": 20.0, "fuse": 20.0, "quantize_dynamic": 10.0}


def right_but(*wrong: int | range) -> np.ndarray[Any, Any]:
    """Which of the examples are right: all but those."""
    right = np.ones(COUNT, dtype=bool)
    for each in wrong:
        right[each] = False
    return right


CLASSES = ("joy", "anger", "fear")
FP32 = right_but(range(100))
"""The first tenth is wrong."""
INT8 = right_but(range(103))
"""Three more are."""


def timed(name: str, times: Mapping[str, float], shape: str = "1x128") -> dict[str, Any]:
    ratios = {other.replace("-", "_"): times[other] / times[name] for other in ("pytorch-fp32", "cpu-fp32")}
    return latency(shape, times[name], **ratios)


def judged(
    name: str = "run",
    *,
    answers: Mapping[str, np.ndarray[Any, Any]] | None = None,
    sizes: Mapping[str, int] | None = None,
    times: Mapping[str, float] | None = None,
    recorded: bool = True,
    **changes: Any,
) -> Judged:
    """A run of INT8 on the CPU; `answers` says by model what is right, where that is not as usual."""
    found = {**dict.fromkeys(MODELS, FP32), "quantize_dynamic": INT8, **(answers or {})}
    found["quantize_dynamic"] = found.pop("quantize_dynamic")  # the result comes last
    times, sizes = {**TIMES, **(times or {})}, {**SIZES, **(sizes or {})}
    content = document(**changes)
    content["measurements"] = []
    for model, right in found.items():
        made = measurement(model, float(right.mean()), sizes.get(model, 200_000_000), [timed(model, times)])
        agreement = float((right == found["pytorch-fp32"]).mean())
        made["drift"] = {**made["drift"], "agreement": agreement, "flips": round(COUNT * (1 - agreement))}
        content["measurements"].append(made)
    scores = {}
    for model, right in found.items():
        kept = Kept(right[:, None].astype(float), right, right.astype(int) if recorded else None)
        scores[model] = kept
    return Judged(name, Manifest.model_validate(content), scores)


def classed(name: str, predicted: np.ndarray[Any, Any], *, recorded: bool = True) -> Judged:
    """A run of INT8 that answers with one of three classes, the last of which has 20 right answers."""
    gold = np.repeat([0, 1, 2], [600, 380, 20])
    counts = {model: counts_of(gold, gold, CLASSES) for model in MODELS[:-1]}
    counts["quantize_dynamic"] = counts_of(predicted, gold, CLASSES)
    run = judged(name, answers={"quantize_dynamic": predicted == gold, **dict.fromkeys(MODELS[:-1], gold == gold)})
    measurements = []
    for each in run.record.measurements:
        classes, macro = compare_classes(counts[each.name], counts["export"], confidence=0.95, seed=0, resamples=20)
        metric = each.metric.model_copy(update={"classes": classes, "macro_f1": macro})
        measurements.append(each.model_copy(update={"metric": metric}))
    scores = dict(run.scores)
    if recorded:
        scores = {model: replace(kept, classes=counts[model].counts) for model, kept in scores.items()}
    return Judged(name, run.record.model_copy(update={"measurements": measurements}), scores)


def request(**changes: Any) -> dict[str, Any]:
    return {**REQUEST, **changes}


def put(folder: Path, run: Judged) -> Path:
    """A run's folder."""
    folder.mkdir(parents=True)
    write_kept(run.scores, folder)
    manifest.write(run.record, folder)
    return folder


def metric_of(run: Judged, name: str, scores: Mapping[str, Kept], value: float) -> Judged:
    """The same run, whose result has another metric, made of other statistics."""
    *others, last = run.record.measurements
    metric = last.metric.model_copy(update={"name": name, "value": value})
    last = last.model_copy(update={"metric": metric})
    record = run.record.model_copy(update={"measurements": [*others, last]})
    return Judged(run.name, record, {**run.scores, **scores})
