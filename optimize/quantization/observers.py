"""What to remember of a tensor's values while texts stream by: a few numbers, or one histogram of fixed size.

The histogram's bins lie on a grid that is anchored at 0 and has a power of two as width. A value
outside doubles the width, upon which pairs of bins are one: bin i becomes i // 2, exactly. The final
grid follows from the least and the largest value alone, so neither the order of the texts nor their
number of passes matters, and nothing is kept of the values themselves.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from optimize.interfaces import Array
from optimize.quantization.ranges import (
    Histogram,
    Method,
    Range,
    entropy_range,
    mse_range,
    percentile_range,
    spanning,
)

BINS = 8192
"""From half to all of them are in use. Entropy wants 256 of them in the bulk, outliers or not."""
LEAST_EXPONENT = -112
"""Of the narrowest bins' width: all together span 2^-99, the narrowest range of any use, and 2^112 is a float32."""
CHUNK = 2**16
"""Values counted at once: temporaries stay in the CPU's cache, and small."""


class Observer(Protocol):
    """What sees a tensor's values, one text at a time; `values` counts them."""

    values: int

    def update(self, values: Array) -> None:
        """Take in values of any shape; FloatingPointError where one is not finite."""

    def range(self) -> Range:
        """The range for what was seen so far."""


def bounds(values: Array) -> tuple[float, float]:
    """The least and the largest value; FloatingPointError where one is not finite."""
    low, high = float(values.min()), float(values.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise FloatingPointError(f"values from {low} to {high}")
    return low, high


@dataclass
class RunningMinMax:
    """The least and the largest value ever."""

    symmetric: bool = False
    values: int = 0
    low: float = 0.0
    high: float = 0.0

    def update(self, values: Array) -> None:
        """Move the ends outwards."""
        if values.size:
            low, high = bounds(values)
            self.low, self.high = min(self.low, low), max(self.high, high)
            self.values += values.size

    def range(self) -> Range:
        """All that was seen."""
        return spanning(self.low, self.high, symmetric=self.symmetric)


@dataclass
class MovingAverage:
    """Exponential averages of each text's least and largest value, as PyTorch's observers keep them.

    They are divided by the sum of their weights, as in Adam (Kingma and Ba, 2015): the first text
    would otherwise weigh a hundred times as much as the second.
    """

    momentum: float
    symmetric: bool = False
    values: int = 0
    low: float = 0.0
    high: float = 0.0
    weight: float = 0.0

    def update(self, values: Array) -> None:
        """Let the ends follow."""
        if values.size:
            low, high = bounds(values)
            kept, new = self.momentum, 1.0 - self.momentum
            self.low = kept * self.low + new * low
            self.high = kept * self.high + new * high
            self.weight = kept * self.weight + 1.0 - kept
            self.values += values.size

    def range(self) -> Range:
        """The averages."""
        weight = self.weight or 1.0  # 0 before the first text, as the ends are
        return spanning(self.low / weight, self.high / weight, symmetric=self.symmetric)


@dataclass
class StreamingHistogram:
    """Counts of at most `bins` bins, from which `choose` reads the range.

    Bin 0 of the grid is always among them. Values are float32, and dividing them by a power of two is exact.
    """

    choose: Callable[[Histogram], Range]
    symmetric: bool = False
    bins: int = BINS
    values: int = 0
    low: float = 0.0
    high: float = 0.0
    start: int = 0
    exponent: int = LEAST_EXPONENT
    counts: Array = field(default_factory=lambda: np.zeros(1, dtype=np.int64))

    def update(self, values: Array) -> None:
        """Count the values, after making room for them."""
        if not values.size:
            return
        flat = np.asarray(values, dtype=np.float32).reshape(-1)
        low, high = bounds(flat)
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._make_room()
        per_bin = np.float32(2.0**-self.exponent)
        for at in range(0, flat.size, CHUNK):
            # Value x is in bin floor(x / width), which is entry floor(x / width) - start of the counts.
            scaled = flat[at : at + CHUNK] * per_bin
            entries = np.floor(scaled, out=scaled).astype(np.intp)
            entries -= self.start
            self.counts += np.bincount(entries, minlength=self.counts.size)
        self.values += flat.size

    def histogram(self) -> Histogram:
        """What was counted so far."""
        return Histogram(self.counts.copy(), self.start, 2.0**self.exponent)

    def range(self) -> Range:
        """What `choose` reads, within what was seen: bins end where no value need be."""
        found = self.choose(self.histogram())
        return spanning(max(found.low, self.low), min(found.high, self.high), symmetric=self.symmetric)

    def _make_room(self) -> None:
        """Widen bins until they reach from the least to the largest value, then add the missing ones."""
        first, last = self._bin_of(self.low), self._bin_of(self.high)
        while last - first >= self.bins:
            self._double_width()
            first, last = self._bin_of(self.low), self._bin_of(self.high)
        before = self.start - first
        after = last + 1 - (self.start + self.counts.size)
        # Neither is negative: the ends only ever move outwards, and bin 0 is between them from the start.
        if before > 0 or after > 0:
            self.counts = np.pad(self.counts, (before, after))
            self.start = first

    def _bin_of(self, value: float) -> int:
        return math.floor(value * 2.0**-self.exponent)

    def _double_width(self) -> None:
        """Merge bins 2i and 2i + 1 into bin i."""
        # Pairs begin at even bins, so an odd first or an even last bin gets an empty neighbour.
        before = self.start % 2
        after = (before + self.counts.size) % 2
        self.counts = np.pad(self.counts, (before, after)).reshape(-1, 2).sum(axis=1)
        self.start //= 2
        self.exponent += 1


def make_observer(
    method: Method, *, percentile: float, symmetric: bool, momentum: float = 0.99, bins: int = BINS
) -> Observer:
    """The observer that a method needs."""
    if method == "minmax":
        return RunningMinMax(symmetric=symmetric)
    if method == "moving_average":
        return MovingAverage(momentum, symmetric=symmetric)
    choices: dict[Method, Callable[[Histogram], Range]] = {
        "percentile": functools.partial(percentile_range, percentile=percentile),
        "entropy": entropy_range,
        "mse": functools.partial(mse_range, symmetric=symmetric),
    }
    return StreamingHistogram(choices[method], symmetric=symmetric, bins=bins)
