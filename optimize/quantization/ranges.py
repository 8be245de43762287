"""Which range of values to spend the quantized levels on, from a histogram of them; pure numpy.

A wider range clips less and rounds more coarsely. `percentile_range` gives up a fixed share of the
values, `entropy_range` keeps the quantized distribution closest to the real one (Migacz, "8-bit
inference with TensorRT", GTC 2017), `mse_range` minimises the expected squared error (as Banner et
al., 2019, arXiv 1810.05723, do for known distributions). Both ends are searched on their own, since
the values before a BERT's second FFN layer are GELU's: down to -0.17, and up to dozens.

Shapes: B bins of a histogram, K candidate ranges.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from optimize.interfaces import Array

Method = Literal["minmax", "moving_average", "percentile", "entropy", "mse"]

LEVELS = 256
LEAST_SPAN = 2.0**-100
SIDE_CANDIDATES, FINE_CANDIDATES = 64, 33
EMPTY = 1e-4
"""Count of a level that holds clipped values only, as in ONNX Runtime: with 0 any such window would lose all."""
OCTAVES = 8
STEPS_PER_OCTAVE = 4
REFINEMENTS = 3
CANDIDATES_AT_ONCE = 8
"""Arrays of so many rows of 2,048 bins stay below glibc's threshold for memory of its own (128 KiB): with 16 the search
takes three times as long, most of it in page faults."""


@dataclass(frozen=True)
class Range:
    """Values that quantize without clipping; 0 is among them, since padding and biases need it exact."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low <= 0.0 <= self.high):
            raise ValueError(f"a range must be finite and hold 0, not {self.low} to {self.high}")


@dataclass(frozen=True)
class Histogram:
    """`counts` [B], int64: `counts[i]` values were from (start + i) * width to below (start + i + 1) * width.

    The bin that starts at 0 is among them.
    """

    counts: Array
    start: int
    width: float

    @property
    def edges(self) -> Array:
        """Where bins begin and end, [B + 1]."""
        return (self.start + np.arange(self.counts.size + 1)) * self.width


def spanning(low: float, high: float, *, symmetric: bool = False) -> Range:
    """The range from `low` to `high` and 0; with `symmetric` as far down as up.

    Where all values are 0, any scale is right, but those near 0 are not: a bias is stored as a
    multiple of it in 32 bits. So 1 it is.
    """
    low, high = min(low, 0.0) + 0.0, max(high, 0.0)  # + 0.0 turns -0.0 into 0.0
    if high - low < LEAST_SPAN:
        low, high = 0.0, 1.0
    return Range(-max(-low, high), max(-low, high)) if symmetric else Range(low, high)


def percentile_range(h: Histogram, *, percentile: float) -> Range:
    """Keep `percentile` percent of the values, cutting equally many at either end.

    Within a bin values are taken to be spread evenly. An end beyond 0 is moved to 0.
    """
    below = _sums_before(h.counts)
    total = below[-1]
    cut = total * (100.0 - percentile) / 200.0  # values to lose at either end, a fraction included
    # Bins that hold values, so that neither end comes to lie in a gap.
    first = int(np.searchsorted(below, cut, side="right")) - 1
    stop = int(np.searchsorted(below, total - cut, side="left"))
    if first >= stop:
        return spanning(0.0, 0.0)
    # What the bins outside do not hold of the cut is taken from the outermost bins that stay.
    low = first + (cut - below[first]) / h.counts[first]
    high = stop - (below[stop] - total + cut) / h.counts[stop - 1]
    return spanning(float(h.start + low) * h.width, float(h.start + high) * h.width)


def entropy_range(h: Histogram, *, levels: int = LEVELS) -> Range:
    """The range whose quantized distribution loses least information: KL(clipped || clipped and quantized).

    As Migacz has it, values cut off are counted in the outermost bins of the one and are missing in
    the other; bins that share a level share its mass, unless they are empty. Windows narrower than
    `levels` bins would lose nothing to rounding and are not looked at.
    """
    size, zero = h.counts.size, -h.start
    if size <= levels:
        return spanning(h.start * h.width, (h.start + size) * h.width)
    divergences = _divergences(h, levels)
    # Coarsely: windows that begin between the first bin and 0, and end between 0 and the last bin.
    starts = _whole(np.linspace(0, zero, SIDE_CANDIDATES + 1), 0, zero)
    stops = _whole(np.linspace(zero + 1, size, SIDE_CANDIDATES + 1), zero + 1, size)
    first, stop = _least(starts, stops, levels, divergences)
    # Finely: ends up to one coarse step away from the best ones.
    around = np.linspace(-1.0, 1.0, FINE_CANDIDATES) / SIDE_CANDIDATES
    starts = _whole(first + np.rint(around * zero), 0, zero)
    stops = _whole(stop + np.rint(around * (size - zero)), zero + 1, size)
    first, stop = _least(starts, stops, levels, divergences)
    return spanning((h.start + first) * h.width, (h.start + stop) * h.width)


def mse_range(h: Histogram, *, levels: int = LEVELS, symmetric: bool) -> Range:
    """The range with the least expected squared error, rounding and clipping together.

    The error is that of the integers which will be used, a whole zero point included; symmetric
    ones leave out the lowest level, as -127 to 127 does. Ends are searched in quarter octaves, and
    around the best ever more finely.
    """
    error = _squared_error(h, levels - 2 if symmetric else levels - 1)
    lowest, highest = -h.start * h.width, (h.counts.size + h.start) * h.width
    if symmetric:
        lowest = highest = max(lowest, highest)
    # From the whole reach down by OCTAVES halvings, and 0: GELU's negative side may be worth no level at all.
    octaves = -np.arange(OCTAVES * STEPS_PER_OCTAVE + 1) / STEPS_PER_OCTAVE
    shares = np.append(2.0**octaves, 0.0)
    lows, highs = lowest * shares, highest * shares
    step = 1.0 / STEPS_PER_OCTAVE
    for _ in range(REFINEMENTS + 1):
        low, high = _best(np.unique(lows), np.unique(highs), error, symmetric=symmetric)
        # Next: as many steps as reach one of the last to either side, each a quarter as long.
        factors = 2.0 ** (np.linspace(-1.0, 1.0, 9) * step)
        lows, highs = np.minimum(low * factors, lowest), np.minimum(high * factors, highest)
        step /= 4.0
    return spanning(-low, high, symmetric=symmetric)


def _divergences(h: Histogram, levels: int) -> Callable[[Array, Array], Array]:
    """How far windows of bins [K], from `first` to before `stop`, are from their quantized selves, [K].

    With P_i the counts of the clipped window, which sum to N, and Q_i those of the quantized one, which sum to M,

        KL(P/N || Q/M) = sum (P_i / N) ln((P_i / N) / (Q_i / M)) = (sum P_i ln P_i - sum P_i ln Q_i) / N - ln N + ln M.

    Q_i is the same for all filled bins of a level, so sums up to each bin give both sums without a loop over bins.
    """
    counts = h.counts.astype(np.float64)
    total = counts.sum()
    mass, filled, plogp = _sums_before(counts), _sums_before(counts > 0), _sums_before(_xlogy(counts, counts))

    def divergence(first: Array, stop: Array) -> Array:
        # The bins at which levels begin and end, [K, levels + 1].
        splits = np.linspace(0.0, 1.0, levels + 1)
        edges = first[:, None] + np.rint(splits * (stop - first)[:, None]).astype(np.int64)
        # Per level, what it holds and over how many filled bins Q spreads that; the window's own sum P ln P.
        held, bins = np.diff(mass[edges]), np.diff(filled[edges])
        clipped = held.copy()
        own = plogp[stop] - plogp[first]
        # P alone has the values that are cut off, in its outermost bins, which they fill where those were empty.
        for level, end, outside in ((0, first, mass[first]), (-1, stop - 1, total - mass[stop])):
            bins[:, level] += (counts[end] == 0) & (outside > 0)
            clipped[:, level] += outside
            own += _xlogy(counts[end] + outside, counts[end] + outside) - _xlogy(counts[end], counts[end])
        # sum P ln Q: a level's Q is one number, so its P need not be told apart.
        q = np.maximum(held, EMPTY) / np.maximum(bins, 1.0)
        cross = _xlogy(clipped, q).sum(axis=1)
        inside = np.maximum(mass[stop] - mass[first], EMPTY)
        found: Array = (own - cross) / total - np.log(total) + np.log(inside)
        return found

    return divergence


def _sums_before(values: Array) -> Array:
    """What comes before each of B values in sum, and at last the sum of all: [B + 1]."""
    return np.concatenate([[0], np.cumsum(values)])


def _whole(values: Array, least: int, most: int) -> Array:
    """Values rounded to integers and held within bounds, each once, sorted."""
    return np.unique(np.clip(np.rint(values).astype(np.int64), least, most))


def _xlogy(x: Array, y: Array) -> Array:
    """Return x ln(y), and 0 where x is 0."""
    return x * np.log(np.where(x > 0, y, 1.0))


def _least(starts: Array, stops: Array, levels: int, divergences: Callable[[Array, Array], Array]) -> tuple[int, int]:
    """The window of at least `levels` bins with the least divergence; the widest one of equals."""
    first, stop = _pairs(starts, stops)
    wide = stop - first >= levels
    first, stop = first[wide], stop[wide]
    # `argmin` takes the first of equals.
    widest_first = np.argsort(first - stop, kind="stable")
    first, stop = first[widest_first], stop[widest_first]
    best = int(np.argmin(divergences(first, stop)))
    return int(first[best]), int(stop[best])


def _pairs(ones: Array, others: Array) -> tuple[Array, Array]:
    """Every one with every other: [K] and [K]."""
    return np.repeat(ones, others.size), np.tile(others, ones.size)


def _squared_error(h: Histogram, steps: int) -> Callable[[Array, Array], Array]:
    """The summed squared error of the histogram's values in ranges -low to high, [K] each -> [K].

    A bin's values are taken to be spread evenly, so a bin of c values from a to b has the error c / width times

        I(b) - I(a), where I(x) = integral from 0 to x of (t - q(t))^2 dt

    and q(t) is the level nearest to t, n * scale. From one midpoint of levels to the next that is scale^3 / 12, so with
    x = n * scale + r, I(x) = n * scale^3 / 12 + r^3 / 3. Beyond the outermost levels n stays and r grows.
    """
    x = h.edges
    # Summed over bins, each edge's integral counts for the bin before it and against the one after.
    weights = -np.diff(h.counts, prepend=0, append=0) / h.width

    def error(low: Array, high: Array) -> Array:
        scale = (low + high) / steps
        zero = np.rint(low / scale)  # levels below 0
        scale, least, most = scale[:, None], -zero[:, None], (steps - zero)[:, None]
        # n and r at every edge, for every candidate: [K, B + 1]. In place, since this is most of the search.
        n = x / scale
        np.rint(n, out=n)
        np.maximum(n, least, out=n)
        np.minimum(n, most, out=n)
        r = n * scale
        np.subtract(x, r, out=r)
        n *= scale**3 / 12.0
        cube = r * r
        cube *= r
        cube /= 3.0
        n += cube
        found: Array = n @ weights
        return found

    return error


def _best(lows: Array, highs: Array, error: Callable[[Array, Array], Array], *, symmetric: bool) -> tuple[float, float]:
    """The pair with the least error; with `symmetric` equal ends only."""
    if symmetric:
        low = high = highs
    else:
        high, low = _pairs(highs, lows)
    some = low + high > 0
    low, high = low[some], high[some]
    errors = np.empty(low.size)
    for at in range(0, low.size, CANDIDATES_AT_ONCE):
        part = slice(at, at + CANDIDATES_AT_ONCE)
        errors[part] = error(low[part], high[part])
    best = int(np.argmin(errors))
    return float(low[best]), float(high[best])
