"""Limits beside what was measured: the outcome of each, with its reason in words."""

from __future__ import annotations

from collections.abc import Iterable
from math import isnan

from optimize.evidence import more_examples
from optimize.manifest import Check, Latency, Measurement, Outcome
from optimize.rule import Estimate, Rule, excess, held, missed


def decide(
    name: str, limit: float, found: Estimate, *, rule: Rule, confidence: float, words: str, examples: int
) -> Check:
    """Hold an estimate from so many examples against its limit by the rule; `words` say what was measured."""
    plain = compare(name, limit, found.value, words=words)
    if rule == "estimate" or plain.value is None:
        return plain
    sure, bound = f"at {_percent(confidence)}", _bound(name, rule, held(rule, name, found))
    beyond = bool(missed(rule, name, limit, found))
    if rule == "not_worse":
        if plain.outcome == "passed":
            return plain
        if beyond:
            return _as(plain, "failed", f"{plain.reason}; {sure} it is {bound}")
        return _as(plain, "passed", f"{plain.reason}, but is not proven to: {sure} it is {bound}")
    if plain.outcome == "failed":
        return plain
    if not beyond:
        return _as(plain, "passed", f"{plain.reason}; {sure} it is {bound}")
    more = more_examples(name, limit, found, examples)
    return _as(plain, "failed", f"{words} meets the limit but is not proven {sure}: {more}")


def _bound(name: str, rule: Rule, end: float) -> str:
    """The end of an interval as what a value is at least or at most."""
    lower = (rule == "not_worse") != name.startswith("min_")
    return f"at {'least' if lower else 'most'} {end:.4f}"


def prove_speedup(check: Check, latency: Latency, *, over: str, words: str) -> Check:
    """Hold a speed-up that meets its limit against the lower end of its 95 % interval."""
    interval = latency.speedup_interval.get(over)
    if interval is None:
        return _as(check, "unverified", f"{words} was measured without an interval")
    if not excess(check.name, check.limit, interval[0]):
        return _as(check, "passed", f"{check.reason}; at 95 % it is at least {interval[0]:.2f}x")
    reason = f"{words} meets the limit but is not proven at 95 %: it may be {interval[0]:.2f}x; measure longer"
    return _as(check, "failed", reason)


def compare(name: str, limit: float, value: float, *, words: str) -> Check:
    """Hold a value against its limit as it is; `words` say what was measured."""
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


def unverified(name: str, limit: float, reason: str) -> Check:
    """The outcome of a limit without its measurement."""
    return Check(name=name, limit=limit, value=None, outcome="unverified", reason=reason)


def why(measurement: Measurement, *keys: str) -> str:
    """The recorded reason why something was not measured."""
    return _first((measurement.not_measured.get(key) for key in keys), f"{keys[0]} was not measured")


def _first(reasons: Iterable[str | None], otherwise: str) -> str:
    return next((reason for reason in reasons if reason), otherwise)


def _as(check: Check, outcome: Outcome, reason: str) -> Check:
    return check.model_copy(update={"outcome": outcome, "reason": reason})


def _percent(confidence: float) -> str:
    return f"{100.0 * confidence:.4g} %"
