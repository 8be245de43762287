"""The limits that a result must meet, and what meets them: pure functions of limits and measurements.

A limit without a measurement never passes, nor does one that was measured as NaN, nor a model whose
data would not show a loss (see `optimize.evidence`). Limits on answers are decided by a rule that stages go by too
(see `optimize.rule`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from pydantic import BaseModel, ConfigDict, Field

from optimize.evidence import class_doubts, doubts
from optimize.manifest import Check, ClassF1, Constant, Measurement, Metric, Verdict
from optimize.outcomes import compare, decide, prove_speedup, unverified, why
from optimize.rule import CONFIDENCE, DEFAULT, Estimate, Rule, agreement, agreement_of, drop_of, f1_drop_of, held

NAMED = 5
"""Classes that are not judged which an outcome names."""
ON_ACCURACY = ("max_metric_drop", "max_relative_metric_drop", "min_agreement")


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
    rule: Rule | None = Field(
        default=None,
        description="What decides limits on answers (the first five). `estimate`: what was measured on the examples at "
        "hand. `not_worse`: a limit is missed where that is proven. `proven`: it is met where that is proven, and a "
        "speed-up too. Left out, `not_worse`, or `proven` beside `confidence`.",
    )
    confidence: float | None = Field(
        default=None,
        gt=0.5,
        lt=1,
        description="How sure a proof has to be, to one side: 0.95 is wrong in one of twenty at most. Left out, 0.95. "
        "A speed-up is held against its 95 % interval.",
    )

    @property
    def decided_by(self) -> Rule:
        """The rule that holds."""
        return self.rule or (DEFAULT if self.confidence is None else "proven")

    @property
    def level(self) -> float:
        """The confidence of its proofs."""
        return self.confidence or CONFIDENCE

    def on_accuracy(self) -> Gates:
        """The limits on answers alone, and their rule, which are all that stages may go by."""
        limits = {name: getattr(self, name) for name in ON_ACCURACY}
        return Gates(rule=self.decided_by, confidence=self.confidence, **limits)

    @property
    def limits_answers(self) -> bool:
        """Whether any of the limits that a search goes by is set."""
        return any(getattr(self, name) is not None for name in ON_ACCURACY)

    def as_recorded(self) -> dict[str, object]:
        """What a manifest keeps: all that is set, defaults too, with the rule and the confidence that hold."""
        return self.model_dump(exclude_none=True) | {"rule": self.decided_by, "confidence": self.level}


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
    drop, relative, least = gates.max_metric_drop, gates.max_relative_metric_drop, gates.min_agreement
    drops = [drop, None if relative is None else relative * abs(metric.reference)]
    shares = [drop, relative, None if least is None else 1.0 - least, gates.max_macro_f1_drop]
    agrees = _may_agree(gates, metric, metric.constant) if metric.constant else None
    found = list(doubts(metric, share=_least(shares), drop=_least(drops), agrees=agrees))
    if gates.max_class_f1_drop is not None:
        judged, _ = _by_support(metric, gates.class_support)
        found += class_doubts(judged, gates.max_class_f1_drop, confidence=metric.confidence)
    return found


def _may_agree(gates: Gates, metric: Metric, constant: Constant) -> bool | None:
    """Whether an answer that is the same for every text may meet the limit on agreement; None where there is none."""
    if gates.min_agreement is None:
        return None
    found = agreement(constant.agreement, metric.answers or metric.examples, confidence=gates.level)
    # Proof is asked of the model; that an answer meets the limit as it is, is doubt enough.
    return gates.min_agreement <= (found.upper if gates.decided_by == "not_worse" else found.value)


def _least(limits: Iterable[float | None]) -> float | None:
    return min((limit for limit in limits if limit is not None), default=None)


def check_metric_drop(gates: Gates, measurement: Measurement) -> Check | None:
    """The drop in the metric's own unit."""
    limit, metric = gates.max_metric_drop, measurement.metric
    if limit is None:
        return None
    if metric is None:
        return unverified("max_metric_drop", limit, why(measurement, "metric"))
    return _decide_drop(gates, "max_metric_drop", limit, drop_of(metric, confidence=gates.level), metric, "drop")


def check_relative_metric_drop(gates: Gates, measurement: Measurement) -> Check | None:
    """The drop as a share of the reference's score."""
    limit, metric = gates.max_relative_metric_drop, measurement.metric
    if limit is None:
        return None
    if metric is None:
        return unverified("max_relative_metric_drop", limit, why(measurement, "metric"))
    if metric.relative_drop is None:
        return unverified("max_relative_metric_drop", limit, "the reference scores 0, so no drop is a share of it")
    drop = drop_of(metric, confidence=gates.level, unit=abs(metric.reference))
    return _decide_drop(gates, "max_relative_metric_drop", limit, drop, metric, "relative drop")


def check_agreement(gates: Gates, measurement: Measurement) -> Check | None:
    """The share of decisions that are the reference's."""
    limit, drift = gates.min_agreement, measurement.drift
    if limit is None:
        return None
    if drift is None:
        return unverified("min_agreement", limit, why(measurement, "drift"))
    words = f"agreement {drift.agreement:.4f} ({drift.flips:,} of {drift.decisions:,} decisions differ)"
    found = agreement_of(drift, measurement.metric, confidence=gates.level)
    examples = measurement.metric.examples if measurement.metric else drift.decisions
    rule, confidence = gates.decided_by, gates.level
    return decide("min_agreement", limit, found, rule=rule, confidence=confidence, words=words, examples=examples)


def check_macro_f1_drop(gates: Gates, measurement: Measurement) -> Check | None:
    """The drop of the mean F1 of all classes."""
    limit, metric = gates.max_macro_f1_drop, measurement.metric
    if limit is None:
        return None
    if metric is None or metric.macro_f1 is None:
        return unverified("max_macro_f1_drop", limit, _why_no_classes(measurement))
    drop = f1_drop_of(metric.macro_f1, confidence=gates.level)
    return _decide_drop(gates, "max_macro_f1_drop", limit, drop, metric, "drop of macro F1")


def check_class_f1_drop(gates: Gates, measurement: Measurement) -> Check | None:
    """The largest drop of a class's F1, of those that occur often enough."""
    limit, metric = gates.max_class_f1_drop, measurement.metric
    if limit is None:
        return None
    if metric is None or not metric.classes:
        return unverified("max_class_f1_drop", limit, _why_no_classes(measurement))
    judged, rare = _by_support(metric, gates.class_support)
    left_out = _left_out(rare, gates.class_support)
    if not judged:
        return unverified(
            "max_class_f1_drop", limit, f"no class has as many right answers as class_support asks for{left_out}"
        )
    worst, drop = _worst(judged, gates)
    words = f"drop of F1 of class '{worst.name}' ({worst.support:,} right answers)"
    check = _decide_drop(gates, "max_class_f1_drop", limit, drop, worst, words)
    return check.model_copy(update={"reason": f"{check.reason}{left_out}"})


def _worst(judged: Sequence[ClassF1], gates: Gates) -> tuple[ClassF1, Estimate]:
    """The class that stands worst by the rule, with its drop.

    That one of C classes is proven to have lost too much takes C proofs, each with a C-th of the error (Bonferroni).
    That none has takes no more than one each.
    """
    tries = len(judged) if gates.decided_by == "not_worse" else 1
    drops = [f1_drop_of(each, confidence=1.0 - (1.0 - gates.level) / tries) for each in judged]
    place = max(range(len(judged)), key=lambda index: held(gates.decided_by, "max_class_f1_drop", drops[index]))
    return judged[place], drops[place]


def _decide_drop(
    gates: Gates, name: str, limit: float, drop: Estimate, measured: Metric | ClassF1, words: str
) -> Check:
    """Hold a drop, which a metric or a class's answers tell, against its limit by the rule."""
    examples = measured.support if isinstance(measured, ClassF1) else measured.examples
    words = f"{words} {drop.value:.4f}"
    rule, confidence = gates.decided_by, gates.level
    return decide(name, limit, drop, rule=rule, confidence=confidence, words=words, examples=examples)


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
        return why(measurement, "metric")
    return f"F1 by class was not measured beside {measurement.metric.name}, whose answers may be no classes"


def check_speedup(gates: Gates, measurement: Measurement) -> Check | None:
    """The ratio of median latencies over the reference at the gate's shape."""
    limit, over, shape = gates.min_speedup, gates.speedup_over, gates.speedup_shape
    if limit is None:
        return None
    latency = next((each for each in measurement.latency if each.shape == shape), None)
    if latency is None or over not in latency.speedup:
        return unverified("min_speedup", limit, why(measurement, f"latency {shape}", "latency"))
    if latency.unreliable:
        return unverified(
            "min_speedup",
            limit,
            f"latency at {shape} is not reliable: {latency.unreliable}; certify again on a quiet machine",
        )
    value = latency.speedup[over]
    words = f"speed-up {value:.2f}x over {over} at {shape}"
    check = compare("min_speedup", limit, value, words=words)
    if gates.decided_by != "proven" or check.outcome != "passed":
        return check
    return prove_speedup(check, latency, over=over, words=words)


def check_size_ratio(gates: Gates, measurement: Measurement) -> Check | None:
    """The model file beside the FP32 weights."""
    limit, ratio = gates.max_size_ratio, measurement.size.ratio
    if limit is None:
        return None
    words = f"size ratio {ratio:.4f} ({measurement.size.bytes:,} bytes)"
    return compare("max_size_ratio", limit, ratio, words=words)


def check_memory(gates: Gates, measurement: Measurement) -> Check | None:
    """The peak memory of the process that ran the model."""
    limit, peak = gates.max_memory_bytes, measurement.peak_memory_bytes
    if limit is None:
        return None
    if peak is None:
        return unverified("max_memory_bytes", limit, why(measurement, "memory", "latency"))
    return compare("max_memory_bytes", limit, peak, words=f"peak memory {peak:,} bytes")


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
