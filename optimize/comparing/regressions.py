"""What got worse since the last accepted run, by how much, and where in the pipeline.

Answers are compared by paired tests on the same examples, so a loss that chance explains is none. Size, drift and
latency are numbers, held to tolerances. What cannot be compared is never passed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from optimize.compared import Change, Regression, Speed, write_regression
from optimize.comparing.answers import Paired, agreement_p, pair, why_not_the_same
from optimize.comparing.baselines import read_baseline
from optimize.comparing.blame import Read, find_blame
from optimize.comparing.classes import classes_of, compare_classes
from optimize.comparing.environments import compare_speed, differences
from optimize.comparing.judged import Judged, own_reference, read_judged, side_of
from optimize.errors import RequestError
from optimize.evaluate.statistics import holm
from optimize.finished import as_stated
from optimize.manifest import Measurement, Outcome
from optimize.publishing.checksums import CHECKSUMS
from optimize.report.tables import REFERENCE, at_shape
from optimize.report.write import write_report

DRIFTS = ("kl", "cosine", "mean_abs", "padding_max_abs", "batch_max_abs")
"""Numbers of a manifest's drift that are compared; the largest difference of all is one output's, and no trend."""
LEAST_DRIFT = 1e-4
"""What a drift is at least taken for: below, it is rounding."""


@dataclass(frozen=True)
class Tolerances:
    """What size, drift and latency may grow by, as shares of the baseline's; latency is not compared where None.

    `alpha` is how often, at most, the tests of answers together see a loss that is none.
    """

    alpha: float = 0.05
    size: float = 0.01
    drift: float = 0.25
    latency: float | None = 0.1


USUAL = Tolerances()


def regress(run: Path, baselines: Path, *, name: str | None = None, tolerances: Tolerances = USUAL) -> Regression:
    """Hold a run against its accepted baseline; write `regression.json` and the run's report, which tells of it."""
    if (run / CHECKSUMS).exists():
        raise RequestError(f"{run}: is a publication, whose checksums hold its files; compare its run")
    judged = read_judged(run)
    found = hold_against(read_baseline(judged, baselines, name), judged, tolerances)
    write_regression(found, run)
    with as_stated(run):
        write_report(judged.record, run)
    return found


def hold_against(baseline: Judged, run: Judged, tolerances: Tolerances = USUAL) -> Regression:
    """Hold a run against another one."""
    changes = list(_changes(baseline, run, tolerances))
    outcomes = {each.outcome for each in changes}
    outcome: Outcome = "failed" if "failed" in outcomes else "unverified" if "unverified" in outcomes else "passed"
    return Regression(
        outcome=outcome,
        run=side_of(run),
        baseline=side_of(baseline),
        alpha=tolerances.alpha,
        environment=differences(baseline.record, run.record),
        changes=changes,
    )


def _changes(baseline: Judged, run: Judged, tolerances: Tolerances) -> Iterator[Change]:
    if why := why_not_the_same(baseline.record, run.record):
        yield _unverified("comparable", None, None, f"not comparable: {why}")
        return
    yield from _answers(baseline, run, tolerances.alpha)
    yield _size(baseline, run, tolerances.size)
    yield from _drifts(baseline, run, tolerances.drift)
    if tolerances.latency is not None:
        yield from _latencies(baseline, run, tolerances.latency)


def _answers(baseline: Judged, run: Judged, alpha: float) -> Iterator[Change]:
    """Metric, agreement and F1 by class, each by a test, which together are wrong as seldom as one."""
    found = [(_metric(baseline, run), _value), (_agreement(baseline, run), _agreed), *_f1(baseline, run)]
    adjusted = iter(holm([change.p_value for change, _ in found if change.p_value is not None]))
    for change, read in found:
        if change.p_value is None:
            yield change
        else:
            decided = _decide(change.model_copy(update={"allowed": alpha}), next(adjusted))
            yield _blamed(decided, baseline, run, _minus(read))


def _metric(baseline: Judged, run: Judged) -> Change:
    old, new = _value(baseline.result), _value(run.result)
    paired = pair(baseline, run)
    if isinstance(paired, str):
        return _unverified("metric", old, new, f"not comparable: {paired}")
    p_value = paired.p_value(paired.drops(), worse=True)
    name = run.result.metric.name if run.result.metric else "metric"
    return _tested("metric", old, new, p_value, f"{name} {new:.4f}, the baseline's {old:.4f}, {_counts(paired)}")


def _counts(paired: Paired) -> str:
    examples, alone = len(paired.statistics[0]), paired.alone()
    if alone is None:
        return f"on {examples:,} examples"
    return f"on {examples:,} examples of which {alone[0]:,} were lost and {alone[1]:,} won"


def _agreement(baseline: Judged, run: Judged) -> Change:
    old, new = _agreed(baseline.result), _agreed(run.result)
    if old is None or new is None:
        return _unverified("agreement", old, new, "not comparable: drift was not measured in both runs")
    p_value = agreement_p(baseline, run)
    if isinstance(p_value, str):
        return _unverified("agreement", old, new, f"not comparable: {p_value}")
    return _tested("agreement", old, new, p_value, f"agreement with FP32 {new:.4f}, the baseline's {old:.4f}")


def _f1(baseline: Judged, run: Judged) -> Iterator[tuple[Change, Read]]:
    """Macro F1, and the class that stands worst, however many there are; nothing where answers are no classes."""
    old, new = _macro(baseline.result), _macro(run.result)
    if old is None and new is None:
        return
    found = compare_classes(baseline, run)
    if isinstance(found, str):
        yield _unverified("macro_f1", old, new, f"not comparable: {found}"), _macro
        return
    yield _tested("macro_f1", old, new, found.macro_p, f"macro F1 {new:.4f}, the baseline's {old:.4f}"), _macro
    before, after = (classes_of(each)[found.worst] for each in (baseline, run))
    reason = (
        f"F1 {after.value:.4f}, the baseline's {before.value:.4f}, of class '{after.name}', the worst of "
        f"{len(classes_of(run)):,}, on {after.support:,} right answers"
    )
    read = partial(_class, place=found.worst)
    yield _tested("class_f1", before.value, after.value, found.class_p, reason), read


def _tested(name: str, old: float | None, new: float | None, p_value: float, reason: str) -> Change:
    """A change with its test, which Holm's correction then decides."""
    loss = old - new if old is not None and new is not None else None
    return Change(
        name=name, baseline=old, value=new, loss=loss, allowed=None, p_value=p_value, outcome="passed", reason=reason
    )


def _decide(change: Change, adjusted: float) -> Change:
    """A tested change with its outcome at the level that it allows."""
    p = f"one-sided p = {adjusted:.3g} after Holm's correction"
    if change.allowed is None or adjusted >= change.allowed:
        reason = f"{change.reason}: no worse, or chance ({p})"
        return change.model_copy(update={"adjusted_p": adjusted, "reason": reason})
    update = {"outcome": "failed", "adjusted_p": adjusted, "reason": f"{change.reason}: worse, not by chance ({p})"}
    return change.model_copy(update=update)


def _size(baseline: Judged, run: Judged, allowed: float) -> Change:
    old, new = baseline.result.size.bytes, run.result.size.bytes
    change = _held("size", old, new, new / old - 1.0, allowed, f"{new:,} bytes, the baseline's {old:,}")
    return _blamed(change, baseline, run, lambda each: math.log(each.size.bytes), share=True)


def _drifts(baseline: Judged, run: Judged, allowed: float) -> Iterator[Change]:
    """The drifts that the baseline has."""
    for name in DRIFTS:
        read = partial(_drift, name=name)
        old, new = read(baseline.result), read(run.result)
        if old is None:
            continue
        if new is None:
            yield _unverified(f"drift.{name}", old, None, f"{name} was not measured, or is not a number")
            continue
        least = max(old, LEAST_DRIFT)
        loss = (max(new, LEAST_DRIFT) - least) / least
        what = "1 - cosine" if name == "cosine" else name
        change = _held(f"drift.{name}", old, new, loss, allowed, f"{what} {new:.3g}, the baseline's {old:.3g}")
        yield _blamed(change, baseline, run, partial(_drift, name=name, unit=least))


def _drift(measurement: Measurement, *, name: str, unit: float = 1.0) -> float | None:
    """A number of which more is worse; of the cosine, what it lacks of 1."""
    value = getattr(measurement.drift, name, None)
    if value is None:
        return None
    return float(1.0 - value if name == "cosine" else value) / unit


def _latencies(baseline: Judged, run: Judged, allowed: float) -> Iterator[Change]:
    """Times at the shapes that the baseline was timed at."""
    speeds = {each.shape: each for each in compare_speed(baseline, run)}
    for old in baseline.result.latency:
        speed, new = speeds[old.shape], at_shape(run.result, old.shape)
        name, p50_ms = f"latency.{old.shape}", new.p50_ms if new else None
        if speed.ratio is None:
            yield _unverified(name, old.p50_ms, p50_ms, f"not comparable: {speed.not_comparable}")
        else:
            yield _latency(baseline, run, speed, speed.ratio, allowed)


def _latency(baseline: Judged, run: Judged, speed: Speed, ratio: float, allowed: float) -> Change:
    over, words = speed.over, f"{ratio:.2f} times the baseline's median at {speed.shape}"
    if over is not None:
        words = f"{words}, each beside its own {over}"
    old, new = (_time(each.result, shape=speed.shape, over=over) for each in (baseline, run))
    change = _held(f"latency.{speed.shape}", old, new, ratio - 1.0, allowed, words)
    if change.outcome == "failed" and over is not None and _overlap(baseline, run, speed.shape, over):
        reason = f"{words}: slower, but the intervals of both overlap; certify the run on a quiet machine"
        return change.model_copy(update={"outcome": "unverified", "reason": reason})
    read = partial(_log_time, shape=speed.shape, over=over)
    return _blamed(change, baseline, run, read, start=own_reference(run.record), share=True)


def _time(measurement: Measurement, *, shape: str, over: str | None) -> float | None:
    """Milliseconds, or, beside an FP32 reference, the share of its time."""
    latency = at_shape(measurement, shape)
    if latency is None or over is None:
        return latency.p50_ms if latency else None
    return 1.0 / latency.speedup[over] if over in latency.speedup else None


def _log_time(measurement: Measurement, *, shape: str, over: str | None) -> float | None:
    time = _time(measurement, shape=shape, over=over)
    return math.log(time) if time else None


def _overlap(baseline: Judged, run: Judged, shape: str, over: str) -> bool:
    """Whether the run may have gained as much over FP32 as the baseline; so where an interval is missing."""
    old, new = at_shape(baseline.result, shape), at_shape(run.result, shape)
    if old is None or new is None or over not in old.speedup_interval or over not in new.speedup_interval:
        return True
    return new.speedup_interval[over][1] >= old.speedup_interval[over][0]


def _held(name: str, old: float | None, new: float | None, loss: float, allowed: float, words: str) -> Change:
    """A number held to a tolerance."""
    failed = loss > allowed
    relation = "more than" if failed else "within"
    return Change(
        name=name,
        baseline=old,
        value=new,
        loss=loss,
        allowed=allowed,
        outcome="failed" if failed else "passed",
        reason=f"{words}: {loss:+.1%}, {relation} the {100 * allowed:.3g}% that is allowed",
    )


def _blamed(
    change: Change, baseline: Judged, run: Judged, read: Read, *, start: str = REFERENCE, share: bool = False
) -> Change:
    """A regression with where it comes from; `share` where `read` gives logarithms. Anything else as it is."""
    if change.outcome != "failed":
        return change
    blame = find_blame(baseline, run, read, start=start)
    if blame is not None and share:
        blame = blame.model_copy(update={"change": math.expm1(blame.change)})
    return change.model_copy(update={"blame": blame})


def _unverified(name: str, old: float | None, new: float | None, reason: str) -> Change:
    return Change(name=name, baseline=old, value=new, loss=None, allowed=None, outcome="unverified", reason=reason)


def _value(measurement: Measurement) -> float | None:
    return measurement.metric.value if measurement.metric else None


def _agreed(measurement: Measurement) -> float | None:
    return measurement.drift.agreement if measurement.drift else None


def _macro(measurement: Measurement) -> float | None:
    return measurement.metric.macro_f1.value if measurement.metric and measurement.metric.macro_f1 else None


def _class(measurement: Measurement, *, place: int) -> float | None:
    classes = measurement.metric.classes if measurement.metric else []
    return classes[place].value if place < len(classes) else None


def _minus(read: Read) -> Read:
    """A number of which less is worse, turned round."""

    def turned(measurement: Measurement) -> float | None:
        value = read(measurement)
        return None if value is None else -value

    return turned
