"""The limits that a result must meet, and what meets them: pure functions of limits and measurements.

A limit without a measurement never passes, nor does one that was measured as NaN, nor a model whose
data would not show a loss (see `optimize.evidence`). With a confidence, meeting a limit on the
examples at hand is not enough: the interval has to meet it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import inf, isnan

from pydantic import BaseModel, ConfigDict, Field

from optimize.evidence import ROUNDING, Drop, class_doubts, doubts, more_examples
from optimize.manifest import Check, ClassF1, Latency, MacroF1, Measurement, Metric, Outcome, Verdict

NAMED = 5
"""Classes that are not judged which an outcome names."""
ON_ACCURACY = ("max_metric_drop", "max_relative_metric_drop", "min_agreement", "confidence")


class Gates(BaseModel):
    """Limits on the pipeline's last artifact; one that is absent is not checked."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    max_metric_drop: float | None = Field(
        default=None,
        ge=0,
        description="Largest drop of the metric from the PyTorch FP32 reference's, in the metric's own unit: 0.01 "
        "of accuracy is one point.",
    )
    max_relative_metric_drop: float | None = Field(
        default=None,
        ge=0,
        description="Largest drop of the metric as a share of the reference's score: 0.01 is one percent of it.",
    )
    min_agreement: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Smallest share of decisions that are the reference's, right or wrong. A metric can stay while "
        "answers flip both ways; this sees it.",
    )
    max_macro_f1_drop: float | None = Field(
        default=None,
        ge=0,
        description="Largest drop of macro F1, the mean of F1 over the classes that occur among the right answers, "
        "however rare. A score of all answers hardly moves where a rare class is lost; this does.",
    )
    max_class_f1_drop: float | None = Field(
        default=None,
        ge=0,
        description="Largest drop of any class's F1, of entities any type's, among those with `class_support` right "
        "answers.",
    )
    class_support: int = Field(
        default=20,
        ge=1,
        description="Right answers that a class must have for `max_class_f1_drop` to judge it. The outcome names those "
        "that have fewer.",
    )
    min_speedup: float | None = Field(
        default=None,
        gt=0,
        description="Smallest ratio of the median latency of `speedup_over` to the model's own, at `speedup_shape`.",
    )
    speedup_over: str = Field(
        default="pytorch-fp32",
        description="What `min_speedup` compares with: `pytorch-fp32`, or the target's own FP32, such as `cpu-fp32` "
        "or `openvino-fp32`.",
    )
    speedup_shape: str = Field(
        default="1x128",
        description="Shape, batch x tokens, at which `min_speedup` is judged. It is measured "
        "even where `--shapes` does not name it.",
    )
    max_size_ratio: float | None = Field(
        default=None,
        gt=0,
        description="Largest ratio of the model file's bytes to the FP32 weights'. INT8 alone comes to about 0.26.",
    )
    max_memory_bytes: int | None = Field(
        default=None, gt=0, description="Largest peak memory, in bytes, of the process that ran the model."
    )
    confidence: float | None = Field(
        default=None,
        gt=0.5,
        lt=1,
        description="With it, meeting a limit is not enough: a drop has to meet it at the upper end of its interval "
        "at this confidence, a speed-up at the lower end of its 95 % interval. The report says how many "
        "more examples would decide.",
    )

    def on_accuracy(self) -> Gates:
        """The limits on answers alone, which are all that stages may go by."""
        return Gates(**{name: getattr(self, name) for name in ON_ACCURACY})


def excess(name: str, limit: float, value: float) -> float:
    """How far a value is beyond the limit called `name`, in the value's unit: 0 within it, infinite where it is NaN."""
    if isnan(value):
        return inf
    beyond = limit - value if name.startswith("min_") else value - limit
    return beyond if beyond > ROUNDING else 0.0


def judge(gates: Gates, measurement: Measurement) -> Verdict:
    """Check every limit that is set, and whether the data can prove them; no limit at all verifies nothing."""
    checks = check_limits(gates, measurement)
    checks += check_evidence(gates, measurement) if checks else []
    outcomes = {check.outcome for check in checks}
    if "failed" in outcomes:
        return Verdict(outcome="failed", checks=checks)
    if not checks or "unverified" in outcomes:
        return Verdict(outcome="unverified", checks=checks)
    return Verdict(outcome="passed", checks=checks)


def check_limits(gates: Gates, measurement: Measurement) -> list[Check]:
    """The outcome of every limit that is set."""
    return [check for check in (gate(gates, measurement) for gate in GATES) if check is not None]


def check_evidence(gates: Gates, measurement: Measurement) -> list[Check]:
    """What keeps the data from proving that the limits are met; none where they can."""
    metric = measurement.metric
    if metric is None:
        return []
    drop, relative, agreement = gates.max_metric_drop, gates.max_relative_metric_drop, gates.min_agreement
    drops = [drop, None if relative is None else relative * abs(metric.reference)]
    shares = [drop, relative, None if agreement is None else 1.0 - agreement, gates.max_macro_f1_drop]
    found = list(doubts(metric, share=_least(shares), drop=_least(drops), agreement=agreement))
    if gates.max_class_f1_drop is not None:
        judged, _ = _by_support(metric, gates.class_support)
        found += class_doubts(judged, gates.max_class_f1_drop, confidence=metric.confidence)
    return found


def _least(limits: Iterable[float | None]) -> float | None:
    return min((limit for limit in limits if limit is not None), default=None)


def check_metric_drop(gates: Gates, measurement: Measurement) -> Check | None:
    """The drop in the metric's own unit."""
    limit, metric = gates.max_metric_drop, measurement.metric
    if limit is None:
        return None
    if metric is None:
        return _unverified("max_metric_drop", limit, _why(measurement, "metric"))
    return _judge_drop("max_metric_drop", limit, gates, drop=_drop_of(metric, metric), words="drop")


def check_relative_metric_drop(gates: Gates, measurement: Measurement) -> Check | None:
    """The drop as a share of the reference's score."""
    limit, metric = gates.max_relative_metric_drop, measurement.metric
    if limit is None:
        return None
    if metric is None:
        return _unverified("max_relative_metric_drop", limit, _why(measurement, "metric"))
    if metric.relative_drop is None:
        return _unverified("max_relative_metric_drop", limit, "the reference scores 0, so no drop is a share of it")
    drop = _drop_of(metric, metric, unit=abs(metric.reference))
    return _judge_drop("max_relative_metric_drop", limit, gates, drop=drop, words="relative drop")


def check_agreement(gates: Gates, measurement: Measurement) -> Check | None:
    """The share of decisions that are the reference's."""
    limit, drift = gates.min_agreement, measurement.drift
    if limit is None:
        return None
    if drift is None:
        return _unverified("min_agreement", limit, _why(measurement, "drift"))
    counts = f"({drift.flips:,} of {drift.decisions:,} decisions differ)"
    return _compare("min_agreement", limit, drift.agreement, words=f"agreement {drift.agreement:.4f} {counts}")


def check_macro_f1_drop(gates: Gates, measurement: Measurement) -> Check | None:
    """The drop of the mean F1 of all classes."""
    limit, metric = gates.max_macro_f1_drop, measurement.metric
    if limit is None:
        return None
    if metric is None or metric.macro_f1 is None:
        return _unverified("max_macro_f1_drop", limit, _why_no_classes(measurement))
    return _judge_drop(
        "max_macro_f1_drop", limit, gates, drop=_drop_of(metric.macro_f1, metric), words="drop of macro F1"
    )


def check_class_f1_drop(gates: Gates, measurement: Measurement) -> Check | None:
    """The largest drop of a class's F1, of those that occur often enough."""
    limit, metric = gates.max_class_f1_drop, measurement.metric
    if limit is None:
        return None
    if metric is None or not metric.classes:
        return _unverified("max_class_f1_drop", limit, _why_no_classes(measurement))
    judged, rare = _by_support(metric, gates.class_support)
    left_out = _left_out(rare, gates.class_support)
    if not judged:
        return _unverified(
            "max_class_f1_drop", limit, f"no class has as many right answers as class_support asks for{left_out}"
        )
    worst = max(judged, key=lambda each: each.drop)
    if gates.confidence is not None and not excess("max_class_f1_drop", limit, worst.drop):
        worst = max(judged, key=lambda each: each.interval[1])
    drop = _drop_of(worst, metric, examples=worst.support)
    words = f"drop of F1 of class '{worst.name}' ({worst.support:,} right answers)"
    check = _judge_drop("max_class_f1_drop", limit, gates, drop=drop, words=words)
    return check.model_copy(update={"reason": f"{check.reason}{left_out}"})


def _by_support(metric: Metric, least: int) -> tuple[list[ClassF1], list[ClassF1]]:
    """The classes that occur often enough to be judged, and the others."""
    judged: list[ClassF1] = []
    rare: list[ClassF1] = []
    for each in metric.classes:
        (judged if each.support >= least else rare).append(each)
    return judged, rare


def _left_out(rare: Sequence[ClassF1], least: int) -> str:
    """Which classes are not judged, in words that follow others; nothing where all are."""
    if not rare:
        return ""
    named = [f"'{each.name}'" for each in rare[:NAMED]] + [f"{len(rare) - NAMED:,} more"] * (len(rare) > NAMED)
    return f"; not judged, with fewer than {least:,} right answers: {', '.join(named)}"


def _why_no_classes(measurement: Measurement) -> str:
    if measurement.metric is None:
        return _why(measurement, "metric")
    return f"F1 by class was not measured beside {measurement.metric.name}, whose answers may be no classes"


def check_speedup(gates: Gates, measurement: Measurement) -> Check | None:
    """The ratio of median latencies over the reference at the gate's shape."""
    limit, over, shape = gates.min_speedup, gates.speedup_over, gates.speedup_shape
    if limit is None:
        return None
    latency = next((each for each in measurement.latency if each.shape == shape), None)
    if latency is None or over not in latency.speedup:
        return _unverified("min_speedup", limit, _why(measurement, f"latency {shape}", "latency"))
    if latency.unreliable:
        return _unverified(
            "min_speedup",
            limit,
            f"latency at {shape} is not reliable: {latency.unreliable}; certify again on a quiet machine",
        )
    value = latency.speedup[over]
    words = f"speed-up {value:.2f}x over {over} at {shape}"
    check = _compare("min_speedup", limit, value, words=words)
    if gates.confidence is None or check.outcome != "passed":
        return check
    return _prove_speedup(check, latency, over=over, words=words)


def check_size_ratio(gates: Gates, measurement: Measurement) -> Check | None:
    """The model file beside the FP32 weights."""
    limit, ratio = gates.max_size_ratio, measurement.size.ratio
    if limit is None:
        return None
    words = f"size ratio {ratio:.4f} ({measurement.size.bytes:,} bytes)"
    return _compare("max_size_ratio", limit, ratio, words=words)


def check_memory(gates: Gates, measurement: Measurement) -> Check | None:
    """The peak memory of the process that ran the model."""
    limit, peak = gates.max_memory_bytes, measurement.peak_memory_bytes
    if limit is None:
        return None
    if peak is None:
        return _unverified("max_memory_bytes", limit, _why(measurement, "memory", "latency"))
    return _compare("max_memory_bytes", limit, peak, words=f"peak memory {peak:,} bytes")


GATES: tuple[Callable[[Gates, Measurement], Check | None], ...] = (
    check_metric_drop,
    check_relative_metric_drop,
    check_agreement,
    check_macro_f1_drop,
    check_class_f1_drop,
    check_speedup,
    check_size_ratio,
    check_memory,
)


def _drop_of(
    score: Metric | MacroF1 | ClassF1, metric: Metric, *, unit: float = 1.0, examples: int | None = None
) -> Drop:
    """The drop of a score that belongs to a metric, in units of `unit`."""
    return Drop(
        score.drop / unit,
        score.interval[1] / unit,
        score.standard_error / unit,
        metric.confidence,
        metric.examples if examples is None else examples,
    )


def _judge_drop(name: str, limit: float, gates: Gates, *, drop: Drop, words: str) -> Check:
    """Check a drop; with a confidence, its interval's upper end as well."""
    words = f"{words} {drop.value:.4f}"
    check = _compare(name, limit, drop.value, words=words)
    if gates.confidence is None or check.outcome != "passed":
        return check
    if drop.confidence < gates.confidence - ROUNDING:
        reason = f"{words} has an interval at {drop.confidence:.4g} only, not at {gates.confidence:.4g}"
        return check.model_copy(update={"outcome": "unverified", "reason": reason})
    sure = f"at {_percent(drop.confidence)}"
    if not excess(name, limit, drop.upper):
        return check.model_copy(update={"reason": f"{check.reason}; {sure} it is at most {drop.upper:.4f}"})
    more = more_examples(drop, limit)
    reason = f"{words} meets the limit but is not proven {sure}: {more}"
    return check.model_copy(update={"outcome": "failed", "reason": reason})


def _prove_speedup(check: Check, latency: Latency, *, over: str, words: str) -> Check:
    """Hold a speed-up that meets its limit against the lower end of its 95 % interval."""
    interval = latency.speedup_interval.get(over)
    if interval is None:
        return check.model_copy(update={"outcome": "unverified", "reason": f"{words} was measured without an interval"})
    if not excess(check.name, check.limit, interval[0]):
        return check.model_copy(update={"reason": f"{check.reason}; at 95 % it is at least {interval[0]:.2f}x"})
    reason = f"{words} meets the limit but is not proven at 95 %: it may be {interval[0]:.2f}x; measure longer"
    return check.model_copy(update={"outcome": "failed", "reason": reason})


def _compare(name: str, limit: float, value: float, *, words: str) -> Check:
    """Hold a value against its limit; `words` say what was measured."""
    if isnan(value):
        return Check(name=name, limit=limit, value=None, outcome="failed", reason="the measured value is not a number")
    lowest = name.startswith("min_")
    if excess(name, limit, value):
        outcome: Outcome = "failed"
        relation = "is below" if lowest else "exceeds"
    else:
        outcome = "passed"
        relation = "reaches" if lowest else "is within"
    reason = f"{words} {relation} the limit of {limit:,.10g}"
    return Check(name=name, limit=limit, value=value, outcome=outcome, reason=reason)


def _unverified(name: str, limit: float, reason: str) -> Check:
    return Check(name=name, limit=limit, value=None, outcome="unverified", reason=reason)


def _why(measurement: Measurement, *keys: str) -> str:
    """The recorded reason why something was not measured."""
    return _first((measurement.not_measured.get(key) for key in keys), f"{keys[0]} was not measured")


def _first(reasons: Iterable[str | None], otherwise: str) -> str:
    return next((reason for reason in reasons if reason), otherwise)


def _percent(confidence: float) -> str:
    return f"{100.0 * confidence:.4g} %"
