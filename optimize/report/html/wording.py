"""The verdict and what was gained and lost, in words for somebody who decides and does not measure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from optimize.manifest import Check, Latency, Manifest, Measurement, Metric
from optimize.report.tables import REFERENCE, at_shape, judged_shape, megabytes

HEADLINES = {
    "passed": "Passed: every limit is met",
    "failed": "Failed: {unmet} of {all} limits {are} not met",
    "unverified": "Not proven: {unmet} of {all} limits could not be confirmed",
}
ADVICE = {
    "passed": "The optimized model can replace the original within the limits that were set.",
    "failed": "The optimized model should not replace the original as it is.",
    "unverified": "What is missing has to be measured before the optimized model replaces the original.",
}
LIMITS = {
    "max_metric_drop": "Loss of accuracy, in points",
    "max_relative_metric_drop": "Loss of accuracy, relative",
    "min_agreement": "Answers that stay the same",
    "max_macro_f1_drop": "Loss over all classes alike (macro F1)",
    "max_class_f1_drop": "Largest loss of any one class (F1)",
    "min_speedup": "Speed-up",
    "max_size_ratio": "Size beside the original's",
    "max_memory_bytes": "Peak memory",
    "enough_examples": "Enough examples to tell",
    "enough_examples_of_class": "Enough examples of each class to tell",
    "better_than_constant": "The original knows more than one fixed answer",
}
OUTCOMES = {"failed": "not met", "unverified": "not proven", "passed": "met"}
"""What a limit came to, the worst first."""
SHARES = ("metric_drop", "f1_drop", "agreement", "size_ratio")
"""What the names of limits hold that are shares of something."""


@dataclass(frozen=True)
class Tile:
    """One number that matters, what it is, and what it was."""

    label: str
    value: str
    note: str


@dataclass(frozen=True)
class Limit:
    """A check in words."""

    name: str
    limit: str
    value: str
    outcome: str
    words: str
    reason: str


def headline(manifest: Manifest) -> str:
    """The verdict in one line."""
    checks, outcome = manifest.verdict.checks, manifest.verdict.outcome
    unmet = [check for check in checks if check.outcome == outcome]
    if outcome == "passed":
        return HEADLINES[outcome]
    if not checks:
        return "Not proven: nothing was measured" if not manifest.measurements else "Not proven: no limit was set"
    # With a failed limit there may be unverified ones, too; the line counts what it names.
    return HEADLINES[outcome].format(unmet=len(unmet), all=len(checks), are="is" if len(unmet) == 1 else "are")


def limits(manifest: Manifest) -> list[Limit]:
    """All checks, those that are not met first."""
    order = list(OUTCOMES)
    return [_limit(check) for check in sorted(manifest.verdict.checks, key=lambda check: order.index(check.outcome))]


def _limit(check: Check) -> Limit:
    least = check.name.startswith(("min_", "enough_", "better_"))
    return Limit(
        name=LIMITS.get(check.name, check.name.replace("_", " ")),
        limit=f"{'at least' if least else 'at most'} {_amount(check.name, check.limit)}",
        value="not measured" if check.value is None else _amount(check.name, check.value),
        outcome=check.outcome,
        words=OUTCOMES[check.outcome],
        reason=check.reason,
    )


def _amount(name: str, value: float) -> str:
    if name.endswith("_bytes"):
        return megabytes(round(value))
    if name == "min_speedup":
        return f"{value:.2f}×"
    if any(part in name for part in SHARES):
        return f"{value:.2%}"
    return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def summary(manifest: Manifest) -> str:
    """What was gained and what it cost, in a sentence or two."""
    if not manifest.measurements:
        return "The model was only built. Certify it on a machine that the target runs on."
    last = manifest.measurements[-1]
    parts = list(filter(None, (_smaller(last), _faster(manifest, last), _loss(last.metric))))
    gained = f"Compared with the original, the optimized model {_joined(parts)}."
    changed = _changed(last)
    return f"{gained} {changed}" if changed else gained


def _joined(parts: list[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else parts[0]


def _smaller(last: Measurement) -> str:
    ratio = last.size.ratio
    return f"is {1 - ratio:.0%} smaller" if ratio <= 1 else f"is {ratio - 1:.0%} larger"


def _faster(manifest: Manifest, last: Measurement) -> str:
    latency = at_shape(last, judged_shape(manifest))
    if latency is None or REFERENCE not in latency.speedup:
        return ""
    doubt = " (times not reliable)" if latency.unreliable else ""
    return f"runs {latency.speedup[REFERENCE]:.1f} times as fast{doubt}"


def _loss(metric: Metric | None) -> str:
    if metric is None:
        return ""
    name, drop = metric.name.replace("_", " "), metric.drop
    if abs(drop) < 5e-5:
        return f"keeps its {name} of {metric.value:.4f}"
    return (
        f"{'loses' if drop > 0 else 'gains'} {abs(drop):.4f} of {name} ({metric.reference:.4f} to {metric.value:.4f})"
    )


def _changed(last: Measurement) -> str:
    drift = last.drift
    if drift is None:
        return ""
    if not drift.flips:
        return f"All {drift.decisions:,} answers stay the same."
    return f"{drift.flips:,} of {drift.decisions:,} answers changed, for better or worse."


def tiles(manifest: Manifest) -> Iterator[Tile]:
    """The result's numbers beside the original's."""
    if not manifest.measurements:
        return
    last = manifest.measurements[-1]
    metric, drift = last.metric, last.drift
    if metric is not None:
        low, high = metric.interval
        note = f"original {metric.reference:.4f}; loss {metric.drop:+.4f} [{low:+.4f}, {high:+.4f}]"
        yield Tile(metric.name.replace("_", " "), f"{metric.value:.4f}", note)
    shape = judged_shape(manifest)
    latency = at_shape(last, shape)
    if latency is not None and REFERENCE in latency.speedup:
        yield Tile(f"speed-up at {shape}", f"{latency.speedup[REFERENCE]:.2f}×", _interval(latency))
    yield Tile("size", megabytes(last.size.bytes), f"{last.size.ratio:.1%} of the original's")
    if drift is not None:
        yield Tile("same answers", f"{drift.agreement:.2%}", f"{drift.flips:,} of {drift.decisions:,} changed")


def _interval(latency: Latency) -> str:
    low, high = latency.speedup_interval.get(REFERENCE, (latency.speedup[REFERENCE],) * 2)
    doubt = ", not reliable" if latency.unreliable else ""
    return f"median {latency.p50_ms:.2f} ms; between {low:.2f} and {high:.2f} times{doubt}"
