"""The rule by which a limit on answers is met or missed: one, for all that decide.

What a model loses on some hundred examples is an estimate. Where nothing was lost it exceeds a tight limit by chance,
and where more was lost than the limit allows it may stay within. `estimate` takes it as it is. `not_worse` misses a
limit that is proven to be exceeded, `proven` meets one that is proven to be kept; between these two lies what the
examples cannot tell. Both go by one end of an interval, so the confidence is one-sided.

Where answers are right or wrong, the ends are Tango's (1998, for paired shares), and what is exact bounds them:
McNemar's binomial test (1947) on whether anything was lost at all, and Clopper and Pearson's ends (1934) where answers
changed one way. Agreement is binomial. Other scores go by the standard error of the paired bootstrap.
"""

from __future__ import annotations

from math import inf, isnan
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from optimize.manifest import ClassF1, Drift, MacroF1, Metric

if TYPE_CHECKING:
    import numpy as np

Rule = Literal["estimate", "not_worse", "proven"]
Numbers: TypeAlias = "float | np.ndarray[Any, Any]"
"""A number, or as many as are computed with at once."""

DEFAULT: Rule = "not_worse"
CONFIDENCE = 0.95
ROUNDING = 1e-9
"""What differs from its limit by less differs by rounding: 0.88 - 0.87 > 0.01."""
HALVINGS = 50
"""Of an interval from -1 to 1, until a float cannot tell its ends apart."""


class Estimate(NamedTuple):
    """A value, and the ends of its two one-sided intervals."""

    value: float
    lower: float
    upper: float


def for_a_search(rule: Rule) -> Rule:
    """The rule by which one of many is taken: chance favours one of them, so its estimate has to be within, too."""
    return "estimate" if rule == "not_worse" else rule


def held(rule: Rule, name: str, found: Estimate) -> float:
    """What is held against the limit called `name`: the value, or the end that the rule goes by."""
    if rule == "estimate":
        return found.value
    # The least that is lost is a drop's lower end, and an agreement's upper one.
    return found.lower if (rule == "not_worse") != name.startswith("min_") else found.upper


def missed(rule: Rule, name: str, limit: float, found: Estimate) -> float:
    """How far the limit called `name` is missed, in the value's unit: 0 where it is met."""
    return excess(name, limit, held(rule, name, found))


def excess(name: str, limit: float, value: float) -> float:
    """How far a value is beyond the limit called `name`, in the value's unit: 0 within it, infinite where it is NaN."""
    if isnan(value):
        return inf
    beyond = limit - value if name.startswith("min_") else value - limit
    return beyond if beyond > ROUNDING else 0.0


def drop_of(metric: Metric, *, confidence: float, unit: float = 1.0) -> Estimate:
    """A metric's drop in units of `unit`; its ends are closer where the metric is the share of right answers."""
    lost, gained = metric.lost, metric.gained
    if lost is None or gained is None or abs((lost - gained) / metric.examples - metric.drop) > ROUNDING:
        return around(metric.drop / unit, metric.standard_error / unit, confidence=confidence)
    lower, upper = paired_ends(lost, gained, metric.examples, confidence=confidence)
    return Estimate(metric.drop / unit, float(lower) / unit, float(upper) / unit)


def f1_drop_of(score: MacroF1 | ClassF1, *, confidence: float) -> Estimate:
    """The drop of one class's F1, or of the mean."""
    return around(score.drop, score.standard_error, confidence=confidence)


def around(value: float, standard_error: float, *, confidence: float) -> Estimate:
    """A value with the ends that the normal distribution gives it."""
    reach = NormalDist().inv_cdf(confidence) * standard_error
    return Estimate(value, value - reach, value + reach)


def agreement_of(drift: Drift, metric: Metric | None, *, confidence: float) -> Estimate:
    """The agreement of decisions that were measured beside a metric, if any."""
    answers = metric.answers if metric else None
    # Decisions that are more than the answers are pairs of these, since their order counts.
    pairs_of = answers if answers is not None and drift.decisions > answers else None
    return agreement(drift.agreement, drift.decisions, pairs_of=pairs_of, confidence=confidence)


def agreement(share: float, decisions: int, *, pairs_of: int | None = None, confidence: float) -> Estimate:
    """A share of decisions with its ends; `pairs_of` is the number of answers where decisions are pairs of these.

    Pairs of N answers tell no more than N / 2 decisions: the variance of Kendall's tau is at most 2 (1 - tau²) / N
    (Kendall and Gibbons 1990), and the share is (1 + tau) / 2.
    """
    trials = decisions if pairs_of is None else max(pairs_of // 2, 1)
    least, most = binomial_ends((1.0 - share) * trials, trials, error=1.0 - confidence)
    return Estimate(share, 1.0 - float(most), 1.0 - float(least))


def paired_ends(lost: Numbers, gained: Numbers, examples: int, *, confidence: float) -> tuple[Numbers, Numbers]:
    """Lower and upper end of a drop: of `examples` the reference alone has `lost` right, the model alone `gained`."""
    lower = _least_drop(lost, gained, examples, confidence)
    return lower, -_least_drop(gained, lost, examples, confidence)


def _least_drop(lost: Numbers, gained: Numbers, examples: int, confidence: float) -> Numbers:
    import numpy as np

    error = 1.0 - confidence
    least, _ = binomial_ends(lost, examples, error=error)
    _, most = binomial_ends(gained, examples, error=error)
    # No more was lost than the reference alone has right; where that is nothing, no less than the model alone has.
    end = np.minimum(_by_score(lost, gained, examples, confidence), np.where(lost > 0, least, -most))
    split, _ = binomial_ends(lost, lost + gained, error=error)
    return np.where(split > 0.5, end, np.minimum(end, 0.0))


def _by_score(lost: Numbers, gained: Numbers, examples: int, confidence: float) -> Numbers:
    """The lower end of Tango's interval: the drop beside which the observed one is just that improbable."""
    import numpy as np

    observed = (lost - gained) / examples
    low, high, z = np.full_like(observed, -1.0), observed, NormalDist().inv_cdf(confidence)
    for _ in range(HALVINGS):
        drop = (low + high) / 2.0
        # The likeliest chance of a gain under that drop, by which the observed one would vary.
        b = (2.0 * examples - lost + gained) * drop - lost - gained
        c = -gained * drop * (1.0 - drop)
        gain = (np.sqrt(np.maximum(b * b - 8.0 * examples * c, 0.0)) - b) / (4.0 * examples)
        variance = np.maximum(2.0 * gain + drop * (1.0 - drop), 0.0) / examples
        improbable = observed - drop > z * np.sqrt(variance)
        low, high = np.where(improbable, drop, low), np.where(improbable, high, drop)
    return low


def binomial_ends(count: Numbers, trials: Numbers, *, error: float) -> tuple[Numbers, Numbers]:
    """Ends of the chance behind `count` of `trials`, each wrong with at most `error`; 0 and 1 of no trials."""
    import numpy as np
    from scipy.special import betaincinv

    others = trials - count
    tiny = np.finfo(float).tiny  # in place of zeros, for which the ends are 0 and 1
    lower = np.where(count > 0, betaincinv(np.maximum(count, tiny), others + 1.0, error), 0.0)
    upper = np.where(others > 0, betaincinv(count + 1.0, np.maximum(others, tiny), 1.0 - error), 1.0)
    return lower, upper
