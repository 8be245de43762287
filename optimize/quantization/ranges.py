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
from typing import Any, Literal

import numpy as np

Array = np.ndarray[Any, Any]
Method = Literal["minmax", "moving_average", "percentile", "entropy", "mse"]

LEVELS = 256
LEAST_SPAN = 2.0**-100
SIDE_CANDIDATES = 64
EMPTY = 1e-4
"""Count of a level that holds clipped values only, as in ONNX Runtime: with 0 any such window would lose all."""
OCTAVES = 8
STEPS_PER_OCTAVE = 4
REFINEMENTS = 3
CANDIDATES_AT_ONCE = 64


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
    low, high = min(low, 0.0) + 0.0, max(high, 0.0)
    if high - low < LEAST_SPAN:
        low, high = 0.0, 1.0
    return Range(-max(-low, high), max(-low, high)) if symmetric else Range(low, high)


def percentile_range(h: Histogram, *, percentile: float) -> Range:
    """Keep `percentile` percent of the values, cutting equally many at either end.

    Within a bin values are taken to be spread evenly. An end beyond 0 is moved to 0.
    """
    below = np.concatenate([[0], np.cumsum(h.counts)])
    cut = below[-1] * (100.0 - percentile) / 200.0
    # Bins that hold values, so that neither end comes to lie in a gap.
    first = int(np.searchsorted(below, cut, side="right")) - 1
    last = int(np.searchsorted(below, below[-1] - cut, side="left"))
    if first >= last:
        return spanning(0.0, 0.0)
    low = first + (cut - below[first]) / h.counts[first]
    high = last - (below[last] - below[-1] + cut) / h.counts[last - 1]
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
    starts = np.unique(np.rint(np.linspace(0, zero, SIDE_CANDIDATES + 1)).astype(np.int64))
    stops = np.unique(np.rint(np.linspace(min(zero + 1, size), size, SIDE_CANDIDATES + 1)).astype(np.int64))
    first, stop = _least(starts, stops, levels, divergences)
    around = np.linspace(-1.0, 1.0, 33) / SIDE_CANDIDATES
    starts = np.unique(np.clip(first + np.rint(around * zero).astype(np.int64), 0, zero))
    stops = np.unique(np.clip(stop + np.rint(around * (size - zero)).astype(np.int64), zero + 1, size))
    first, stop = _least(starts, stops, levels, divergences)
    return spanning((h.start + first) * h.width, (h.start + stop) * h.width)


def mse_range(h: Histogram, *, levels: int = LEVELS, symmetric: bool) -> Range:
    """The range with the least expected squared error, rounding and clipping together.

    The error is that of the integers which will be used, a whole zero point included; symmetric
    ones leave out the lowest level, as -127 to 127 does. Ends are searched in quarter octaves, and
    around the best ever more finely.
    """
    error = _squared_error(h, levels - 2 if symmetric else levels - 1)
    reach = np.array([-h.start, h.counts.size + h.start]) * h.width
    if symmetric:
        reach[:] = reach.max()
    shares = np.append(2.0 ** (-np.arange(OCTAVES * STEPS_PER_OCTAVE + 1) / STEPS_PER_OCTAVE), 0.0)
    lows, highs = reach[0] * shares, reach[1] * shares
    step = 1.0 / STEPS_PER_OCTAVE
    for _ in range(REFINEMENTS + 1):
        low, high = _best(np.unique(lows), np.unique(highs), error, symmetric=symmetric)
        factors = 2.0 ** (np.linspace(-1.0, 1.0, 9) * step)
        lows, highs = np.minimum(low * factors, reach[0]), np.minimum(high * factors, reach[1])
        step /= 4.0
    return spanning(-low, high, symmetric=symmetric)


def _divergences(h: Histogram, levels: int) -> Callable[[Array, Array], Array]:
    """How far windows of bins [K], from `first` to before `stop`, are from their quantized selves, [K].

    KL = sum p ln(p / q), where q is constant over the filled bins of one level: sums of counts, of
    filled bins and of counts times their logarithm, up to each bin, give it without a loop.
    """
    counts = h.counts.astype(np.float64)
    total = counts.sum()
    mass, filled, plogp = (np.concatenate([[0.0], np.cumsum(x)]) for x in (counts, counts > 0, _xlogy(counts, counts)))

    def divergence(first: Array, stop: Array) -> Array:
        splits = np.linspace(0.0, 1.0, levels + 1)
        edges = first[:, None] + np.rint(splits * (stop - first)[:, None]).astype(np.int64)
        quantized, bins = np.diff(mass[edges]), np.diff(filled[edges])
        clipped = quantized.copy()
        own = plogp[stop] - plogp[first]
        for column, end, outside in ((0, first, mass[first]), (-1, stop - 1, total - mass[stop])):
            bins[:, column] += (counts[end] == 0) & (outside > 0)
            clipped[:, column] += outside
            own += _xlogy(counts[end] + outside, counts[end] + outside) - _xlogy(counts[end], counts[end])
        cross = _xlogy(clipped, np.maximum(quantized, EMPTY) / np.maximum(bins, 1.0)).sum(axis=1)
        found: Array = (own - cross) / total - np.log(total) + np.log(np.maximum(mass[stop] - mass[first], EMPTY))
        return found

    return divergence


def _xlogy(x: Array, y: Array) -> Array:
    """Return x ln(y), and 0 where x is 0."""
    return x * np.log(np.where(x > 0, y, 1.0))


def _least(starts: Array, stops: Array, levels: int, divergences: Callable[[Array, Array], Array]) -> tuple[int, int]:
    """The window of at least `levels` bins with the least divergence; the widest one of equals."""
    first, stop = (each.ravel() for each in np.meshgrid(starts, stops, indexing="ij"))
    order = np.argsort(first - stop, kind="stable")
    order = order[(stop - first)[order] >= levels]
    best = order[int(np.argmin(divergences(first[order], stop[order])))]
    return int(first[best]), int(stop[best])


def _squared_error(h: Histogram, steps: int) -> Callable[[Array, Array], Array]:
    """The summed squared error of the histogram's values in ranges -low to high, [K] each -> [K].

    A bin's values are taken to be spread evenly, so its error is an integral of (x - q(x))^2. With
    x = n * scale + r that is, from 0 on, n * scale^3 / 12 + r^3 / 3; beyond the last level n stays and r grows.
    """
    edges = h.edges
    # Summed over bins, each edge's integral counts for the bin before it and against the one after.
    weights = -np.diff(h.counts, prepend=0, append=0) / h.width

    def error(low: Array, high: Array) -> Array:
        scale = (low + high) / steps
        zero = np.rint(low / scale)
        level = np.rint(edges / scale[:, None])
        np.clip(level, -zero[:, None], (steps - zero)[:, None], out=level)
        rest = edges - level * scale[:, None]
        integral = level * (scale[:, None] ** 3 / 12.0) + rest * rest * rest / 3.0
        found: Array = integral @ weights
        return found

    return error


def _best(lows: Array, highs: Array, error: Callable[[Array, Array], Array], *, symmetric: bool) -> tuple[float, float]:
    """The pair with the least error; with `symmetric` equal ends only."""
    if symmetric:
        low = high = highs[highs > 0]
    else:
        low, high = (each.ravel() for each in np.meshgrid(lows, highs))
        low, high = low[low + high > 0], high[low + high > 0]
    parts = [slice(at, at + CANDIDATES_AT_ONCE) for at in range(0, low.size, CANDIDATES_AT_ONCE)]
    best = int(np.argmin(np.concatenate([error(low[part], high[part]) for part in parts])))
    return float(low[best]), float(high[best])
