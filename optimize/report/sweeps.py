"""A sweep's points as tables: those of one model, target and machine, the best first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from optimize.manifest import Environment
from optimize.report.tables import MISSING, UNRELIABLE, Rows, megabytes
from optimize.swept import Swept, Trial

CHOSEN, FRONT, BEATEN, OPEN, MISSES = (
    "chosen",
    "on the front",
    "beaten by another",
    "leaves a limit open",
    "misses a limit",
)
Group = tuple[str, str, str]
LEAST = 5e-5
"""What is less than that rounds to 0.00 %."""


def groups_of(swept: Swept) -> dict[Group, list[Trial]]:
    """The measured points of each model, target and machine, in order."""
    found: dict[Group, list[Trial]] = {}
    for trial in swept.trials:
        if trial.outcome == "measured":
            found.setdefault(trial.group, []).append(trial)
    return found


def standing_of(trial: Trial) -> str:
    """How a point stands among the others, in words."""
    if trial.run is not None:
        return CHOSEN
    if any(check.outcome == "failed" for check in trial.checks):
        return MISSES
    if not trial.meets_gates:
        return OPEN
    return FRONT if trial.on_front else BEATEN


def trial_rows(trials: Sequence[Trial]) -> Rows:
    """One row for each point, the fastest first: how it stands, what it loses on tuning data, speed and size."""
    name = next((each.tuning.metric.name for each in trials if each.tuning and each.tuning.metric), "metric")
    rows: Rows = [("point", "standing", f"{name} (FP32)", "relative drop", "agreement", "times as fast", "size")]
    for trial in sorted(trials, key=lambda each: -(each.speedup or 0.0)):
        rows.append((trial.label, _standing(trial), *_numbers(trial)))
    return rows


def unmet_rows(trials: Sequence[Trial]) -> Rows:
    """One row for each limit that a point does not meet on tuning data; the header alone where all are met."""
    rows: Rows = [("point", "limit", "outcome", "why")]
    for trial in trials:
        for check in trial.checks:
            if check.outcome != "passed":
                rows.append((trial.label, check.name, check.outcome, check.reason))
    return rows


def certified_rows(swept: Swept) -> Rows:
    """One row for each point that was certified; its verdict is on other data than its numbers."""
    rows: Rows = [("model", "target", "point", "verdict", "relative drop", "times as fast", "size")]
    for trial in swept.trials:
        if trial.run is not None:
            _, drop, _, speed, size = _numbers(trial)
            rows.append((trial.model, trial.target, trial.label, trial.verdict or MISSING, drop, speed, size))
    return rows


def _standing(trial: Trial) -> str:
    said = standing_of(trial)
    if trial.verdict is not None:
        said = f"{said}, certified: {trial.verdict}"
    return f"{said} ({FRONT})" if trial.on_front and FRONT not in said else said


def _numbers(trial: Trial) -> tuple[str, ...]:
    tuned = trial.tuning
    if tuned is None:
        return (MISSING,) * 5
    return (
        f"{tuned.metric.value:.4f} ({tuned.metric.reference:.4f})" if tuned.metric else MISSING,
        f"{trial.relative_drop:+.2%}" if trial.relative_drop is not None else MISSING,
        f"{tuned.drift.agreement:.4f}" if tuned.drift else MISSING,
        _speed(trial),
        f"{megabytes(tuned.size.bytes)} ({tuned.size.ratio:.3f})",
    )


def _speed(trial: Trial) -> str:
    if trial.speedup is None:
        return MISSING
    return f"{trial.speedup:.2f}×, {UNRELIABLE}" if trial.is_doubtful else f"{trial.speedup:.2f}×"


def failed_rows(swept: Swept) -> Rows:
    """One row for each point of which nothing was measured, with the reason; the header alone where there is none."""
    rows: Rows = [("point", "model", "target", "outcome", "why")]
    for trial in swept.trials:
        if trial.outcome != "measured":
            rows.append((trial.label, trial.model, trial.target, trial.outcome, trial.reason))
    return rows


def counts(swept: Swept) -> str:
    """How many points there are, by what became of them."""
    total = len(swept.trials)
    kinds = {kind: sum(each.outcome == kind for each in swept.trials) for kind in ("measured", "failed", "left out")}
    said = ", ".join(f"{count:,} {kind}" for kind, count in kinds.items() if count)
    return f"{total:,} points: {said}" if total else "no points"


def title_of(group: Group, swept: Swept) -> str:
    """A group in words; the machine is named where there are several."""
    model, target, machine = group
    words = f"{model} on {target}"
    return f"{words}, {machine_words(swept.environments[machine])}" if len(swept.environments) > 1 else words


def machine_words(environment: Environment) -> str:
    """A machine in a few words."""
    return f"{environment.gpu or environment.cpu}, {environment.cores} cores"


def in_words(trial: Trial) -> str:
    """A measured point in a sentence: what it is, and what it costs and gains."""
    gains = [f"{trial.speedup:.2f} times as fast as FP32 at {trial.shape}"] if trial.speedup is not None else []
    if trial.is_doubtful:
        gains.append(f"which is {UNRELIABLE}")
    if trial.size_ratio is not None:
        gains.append(f"{trial.size_ratio:.3f} of its size")
    if trial.relative_drop is not None:
        gains.append(f"{_lost(trial.relative_drop)} on tuning data")
    return f"{trial.label}: {', '.join(gains)}"


def _lost(drop: float) -> str:
    if abs(drop) < LEAST:
        return "loses nothing of the metric"
    return f"{'loses' if drop > 0 else 'gains'} {abs(drop):.2%} of the metric"


def chosen_words(swept: Swept) -> Iterator[str]:
    """A sentence for each point that was certified."""
    for trial in swept.trials:
        if trial.run is not None:
            yield f"{trial.model} on {trial.target}: {in_words(trial)}; certified: {trial.verdict}"
