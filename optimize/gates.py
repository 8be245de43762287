"""The limits that a result must meet, and what meets them: pure functions of limits and measurements.

A limit without a measurement never passes, nor does one that was measured as NaN, nor a model whose
data would not show a loss (see `optimize.evidence`). With a confidence, meeting a limit on the
examples at hand is not enough: the interval has to meet it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf, isnan
from statistics import NormalDist

from pydantic import BaseModel, ConfigDict, Field

from optimize.evidence import doubts
from optimize.manifest import Check, Latency, Measurement, Metric, Outcome, Verdict

# A score that differs from its limit by less than this differs by rounding: 0.88 - 0.87 > 0.01.
ROUNDING = 1e-9
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
    shares = [drop, relative, None if agreement is None else 1.0 - agreement]
    return list(doubts(metric, share=_least(shares), drop=_least(drops), agreement=agreement))


def _least(limits: Iterable[float | None]) -> float | None:
    return min((limit for limit in limits if limit is not None), default=None)


def check_metric_drop(gates: Gates, measurement: Measurement) -> Check | None:
    """The drop in the metric's own unit."""
    limit, metric = gates.max_metric_drop, measurement.metric
    if limit is None:
        return None
    if metric is None:
        return _unverified("max_metric_drop", limit, _why(measurement, "metric"))
    return _judge_drop("max_metric_drop", limit, gates, metric=metric, unit=1.0)


def check_relative_metric_drop(gates: Gates, measurement: Measurement) -> Check | None:
    """The drop as a share of the reference's score."""
    limit, metric = gates.max_relative_metric_drop, measurement.metric
    if limit is None:
        return None
    if metric is None:
        return _unverified("max_relative_metric_drop", limit, _why(measurement, "metric"))
    if metric.relative_drop is None:
        return _unverified("max_relative_metric_drop", limit, "the reference scores 0, so no drop is a share of it")
    return _judge_drop("max_relative_metric_drop", limit, gates, metric=metric, unit=abs(metric.reference))


def check_agreement(gates: Gates, measurement: Measurement) -> Check | None:
    """The share of decisions that are the reference's."""
    limit, drift = gates.min_agreement, measurement.drift
    if limit is None:
        return None
    if drift is None:
        return _unverified("min_agreement", limit, _why(measurement, "drift"))
    counts = f"({drift.flips:,} of {drift.decisions:,} decisions differ)"
    return _compare("min_agreement", limit, drift.agreement, words=f"agreement {drift.agreement:.4f} {counts}")


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
    check_speedup,
    check_size_ratio,
    check_memory,
)


def _judge_drop(name: str, limit: float, gates: Gates, *, metric: Metric, unit: float) -> Check:
    """Check a drop in units of `unit`; with a confidence, its interval's upper end as well."""
    drop = metric.drop / unit
    words = f"{'relative drop' if 'relative' in name else 'drop'} {drop:.4f}"
    check = _compare(name, limit, drop, words=words)
    if gates.confidence is None or check.outcome != "passed":
        return check
    if metric.confidence < gates.confidence - ROUNDING:
        reason = f"{words} has an interval at {metric.confidence:.4g} only, not at {gates.confidence:.4g}"
        return check.model_copy(update={"outcome": "unverified", "reason": reason})
    upper = metric.interval[1] / unit
    sure = f"at {_percent(metric.confidence)}"
    if not excess(name, limit, upper):
        return check.model_copy(update={"reason": f"{check.reason}; {sure} it is at most {upper:.4f}"})
    more = _more_examples(metric, limit * unit)
    reason = f"{words} meets the limit but is not proven {sure}: {more}"
    return check.model_copy(update={"outcome": "failed", "reason": reason})


def _more_examples(metric: Metric, limit: float) -> str:
    """How many more examples would decide it: the standard error shrinks with their root."""
    room = limit - metric.drop
    if not (room > ROUNDING and metric.standard_error > 0):
        return "no number of examples would decide it"
    z = NormalDist().inv_cdf((1.0 + metric.confidence) / 2.0)
    errors = z * metric.standard_error / room
    needed = metric.examples * errors * errors
    more = float(f"{needed - metric.examples:.2g}")
    if more < 1:
        return "some more examples would decide it"
    return f"about {more:,.0f} more examples would decide it"


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
