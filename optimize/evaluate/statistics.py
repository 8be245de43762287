"""The statistics of measuring: paired bootstraps, McNemar's test, percentiles that runs can carry.

Two models are compared on the same examples, so their differences vary far less than their
scores. Bootstrap: Efron 1979, percentile intervals. McNemar 1947, in its exact, binomial form.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from optimize.interfaces import Array

RUNS_FOR_P90 = 20  # two of them are slower
RUNS_FOR_P99 = 100  # one is
RATIO_TAIL = 0.025


def bootstrap_drops(
    candidate: Array, reference: Array, aggregate: Callable[[Array], float], *, seed: int, resamples: int
) -> Array:
    """Reference minus candidate of `aggregate` on `resamples` resamples of the same rows of both."""
    import numpy as np

    rng = np.random.default_rng(seed)
    drops = np.empty(resamples)
    for turn in range(resamples):
        # The same examples of both: what is hard for one is hard for the other, and cancels.
        rows = rng.integers(0, len(candidate), len(candidate))
        drops[turn] = aggregate(reference[rows]) - aggregate(candidate[rows])
    return drops


def percentile_interval(values: Array, *, confidence: float) -> tuple[float, float]:
    """The two-sided interval that holds `confidence` of `values`; NaN if any of them is."""
    import numpy as np

    tail = 50.0 * (1.0 - confidence)
    low, high = np.percentile(values, [tail, 100.0 - tail])
    return float(low), float(high)


def apart(candidate_right: Array, reference_right: Array) -> tuple[int, int]:
    """Examples that the reference alone has right (lost), and the candidate alone (gained), of [N] booleans."""
    return int((reference_right & ~candidate_right).sum()), int((candidate_right & ~reference_right).sum())


def mcnemar(lost: int, gained: int, *, worse: bool = False) -> float:
    """Exact p of as uneven a split of the examples that only one of the models has right; two-sided.

    With `worse` it is one-sided: small only where more are lost than gained.
    """
    from scipy.stats import binomtest

    # If the models are equally good, each such example is a fair coin's toss: gained ~ B(lost + gained, 1/2).
    alternative = "less" if worse else "two-sided"
    return float(binomtest(gained, lost + gained, 0.5, alternative=alternative).pvalue) if lost + gained else 1.0


def bootstrap_p(drops: Array, *, worse: bool = False) -> float:
    """How likely resampling alone turns the sign of a drop, two-sided; no resamples are no proof, so never 0.

    With `worse` it is one-sided: small only where the candidate is the one that scores less (Davison and Hinkley,
    Bootstrap Methods and their Application, 4.2).
    """
    no_drop = (1 + int((drops <= 0).sum())) / (1 + len(drops))
    if worse:
        return no_drop
    no_rise = (1 + int((drops >= 0).sum())) / (1 + len(drops))
    return min(1.0, 2.0 * min(no_drop, no_rise))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p of several tests, each made so large that all of them together err as seldom as one would (Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def percentiles_ms(seconds: Array) -> tuple[float, float | None, float | None]:
    """Median, 90th and 99th percentile in ms; None where too few runs can show it."""
    import numpy as np

    runs = len(seconds)
    p50, p90, p99 = np.percentile(seconds, [50, 90, 99]) * 1000.0
    return float(p50), float(p90) if runs >= RUNS_FOR_P90 else None, float(p99) if runs >= RUNS_FOR_P99 else None


def ratio_interval(above: Sequence[Array], below: Sequence[Array]) -> tuple[float, float]:
    """The interval of the ratio of medians that is right at least 95 times in 100, from 6 rounds on.

    `above[r]` and `below[r]` are times of round r, taken one right after the other: what slowed the machine in a round
    slowed both, and cancels in that round's ratio. Of the sorted ratios of n rounds, the k-th from both ends enclose
    their median with probability 1 - 2 P(B < k), B ~ B(n, 1/2), however the ratios are distributed (David and
    Nagaraja, Order Statistics, 7.1). Of fewer rounds all are enclosed.
    """
    import numpy as np
    from scipy.stats import binom

    ratios = np.sort([np.median(one) / np.median(other) for one, other in zip(above, below, strict=True)])
    left_out = max(int(binom.ppf(RATIO_TAIL, len(ratios), 0.5)) - 1, 0)
    return float(ratios[left_out]), float(ratios[-1 - left_out])
