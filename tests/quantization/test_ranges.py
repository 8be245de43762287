from __future__ import annotations

import itertools

import numpy as np
import pytest

from optimize.quantization import ranges
from optimize.quantization.ranges import Histogram, Range, entropy_range, mse_range, percentile_range, spanning

NORMAL = np.random.default_rng(0).standard_normal(200_000)
HEAVY = np.random.default_rng(1).standard_t(2.5, 200_000)
GELU = np.array([0.5 * x * (1 + np.tanh(0.7978845608 * (x + 0.044715 * x**3))) for x in 2 * NORMAL])
SPIKED = np.append(NORMAL[:50_000], [60.0])
POSITIVE = np.abs(NORMAL)
SAMPLES = {"normal": NORMAL, "heavy": HEAVY, "gelu": GELU, "spiked": SPIKED, "positive": POSITIVE}


def histogram(values, width=None):
    """All values in one pass, bin 0 included."""
    span = max(values.max(), 0.0) - min(values.min(), 0.0)
    width = width or 2.0 ** np.ceil(np.log2(span / 8000))
    places = np.floor(values / width).astype(np.int64)
    start = min(places.min(), 0)
    counts = np.bincount(places - start, minlength=1 - start)
    return Histogram(counts.astype(np.int64), int(start), float(width))


def quantized(values, low, high, *, symmetric=False, levels=256):
    """Values as integers of `levels` steps bring them back."""
    steps = levels - 2 if symmetric else levels - 1
    scale = (high - low) / steps
    zero = np.rint(-low / scale)
    return (np.clip(np.rint(values / scale) + zero, 0, steps) - zero) * scale


def squared_error(values, found, *, symmetric=False, levels=256):
    return float(((values - quantized(values, found.low, found.high, symmetric=symmetric, levels=levels)) ** 2).mean())


@pytest.mark.parametrize(("low", "high"), [(0.5, 1.0), (-1.0, -0.5), (-1.0, np.inf), (np.nan, 1.0)])
def test_a_range_without_zero_or_without_end_is_refused(low, high):
    with pytest.raises(ValueError, match="finite and hold 0"):
        Range(low, high)


def test_a_range_is_stretched_to_zero_and_never_empty():
    assert spanning(2.0, 5.0) == Range(0.0, 5.0)
    assert spanning(-5.0, -2.0) == Range(-5.0, 0.0)
    assert spanning(0.0, 0.0) == Range(0.0, 1.0)
    assert spanning(0.0, 0.0, symmetric=True) == Range(-1.0, 1.0)
    assert spanning(-0.25, 4.0, symmetric=True) == Range(-4.0, 4.0)
    assert str(spanning(-0.0, 4.0).low) == "0.0"


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("percentile", [95.0, 99.0, 99.9])
def test_a_percentile_cuts_as_much_off_either_end_as_numpy_says(name, percentile):
    values = SAMPLES[name]
    h = histogram(values)
    low, high = np.percentile(values, [(100 - percentile) / 2, (100 + percentile) / 2])
    found = percentile_range(h, percentile=percentile)
    assert found.low == pytest.approx(min(low, 0.0), abs=h.width)
    assert found.high == pytest.approx(max(high, 0.0), abs=h.width)


def test_a_percentile_is_interpolated_within_a_bin():
    h = Histogram(np.array([100, 0, 0, 300]), -2, 1.0)
    found = percentile_range(h, percentile=90.0)
    assert (found.low, found.high) == pytest.approx((-1.8, 2.0 - 20 / 300))


def test_a_percentile_of_100_keeps_all_bins_that_hold_values_and_no_more():
    h = Histogram(np.array([0, 0, 5, 0, 1, 0]), -3, 0.5)
    assert percentile_range(h, percentile=100.0) == Range(-0.5, 1.0)


def test_a_cut_that_falls_between_two_bins_leaves_the_gap_out():
    h = Histogram(np.array([5, 0, 0, 90, 0, 0, 5]), -3, 1.0)
    assert percentile_range(h, percentile=90.0) == Range(0.0, 1.0)


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("levels", [256, 16])
def test_the_least_squared_error_is_that_of_a_search_by_quantizing_the_samples(name, levels):
    values = SAMPLES[name][:20_000] if name != "spiked" else SPIKED[-20_000:]
    found = mse_range(histogram(values), levels=levels, symmetric=False)
    lows, highs = values.min() * np.linspace(0.02, 1, 40) ** 2, values.max() * np.linspace(0.02, 1, 40) ** 2
    pairs = [Range(low, high) for low in (np.minimum(lows, 0.0) if name != "positive" else [0.0]) for high in highs]
    best = min(squared_error(values, pair, levels=levels) for pair in pairs)
    assert squared_error(values, found, levels=levels) <= best * 1.02


@pytest.mark.parametrize("name", SAMPLES)
def test_a_symmetric_range_is_the_best_of_its_kind(name):
    values = SAMPLES[name]
    found = mse_range(histogram(values), symmetric=True)
    assert found.low == -found.high
    reach = np.abs(values).max()
    best = min(
        squared_error(values, Range(-high, high), symmetric=True) for high in reach * np.linspace(0.01, 1, 120) ** 2
    )
    assert squared_error(values, found, symmetric=True) <= best * 1.02


def test_the_expected_error_is_the_error_of_the_samples():
    error = ranges._squared_error(histogram(NORMAL), 255)
    for low, high in [(4.5, 4.5), (1.0, 3.0), (0.1, 0.2)]:
        expected = squared_error(NORMAL, Range(-low, high)) * NORMAL.size
        assert error(np.array([low]), np.array([high]))[0] == pytest.approx(expected, rel=0.01)


def test_a_gaussian_at_16_levels_is_clipped_where_theory_says():
    # Banner et al. (2019): 2.55 sigma for 4 bits.
    found = mse_range(histogram(NORMAL), levels=16, symmetric=False)
    assert (-found.low, found.high) == pytest.approx((2.55, 2.55), rel=0.1)


def naive_divergence(h, first, stop, levels):
    """Migacz's slides, step by step."""
    p = h.counts[first:stop].astype(float)
    q = np.zeros_like(p)
    p[0] += h.counts[:first].sum()
    p[-1] += h.counts[stop:].sum()
    edges = np.rint(np.linspace(0, stop - first, levels + 1)).astype(int)
    for begin, end in itertools.pairwise(edges):
        filled = p[begin:end] > 0
        q[begin:end][filled] = max(h.counts[first:stop][begin:end].sum(), ranges.EMPTY) / max(filled.sum(), 1)
    p, q = p / p.sum(), q / h.counts[first:stop].sum()
    return float((p[p > 0] * np.log(p[p > 0] / q[p > 0])).sum())


@pytest.mark.parametrize("name", SAMPLES)
def test_the_divergence_without_loops_is_the_one_of_the_slides(name):
    h = histogram(SAMPLES[name])
    size, zero = h.counts.size, -h.start
    windows = [(0, size), (zero // 2, size), (0, size - (size - zero) // 3), (zero // 3, zero + (size - zero) * 2 // 3)]
    first, stop = np.array(windows).T
    expected = [naive_divergence(h, *window, 128) for window in windows]
    assert ranges._divergences(h, 128)(first, stop) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_entropy_gives_up_a_lonely_outlier_and_keeps_the_bulk():
    found = entropy_range(histogram(SPIKED))
    assert 2.5 < found.high < 15.0
    assert found.low < -2.5


def test_entropy_cuts_each_end_of_lopsided_data_on_its_own():
    found = entropy_range(histogram(GELU))
    assert found.low == pytest.approx(GELU.min(), abs=0.02)
    assert found.high > 3.0


def test_entropy_is_no_worse_than_any_window_of_a_finer_search_by_much():
    h = histogram(HEAVY)
    divergence = ranges._divergences(h, 256)
    found = entropy_range(h)
    own = [round(found.low / h.width) - h.start], [round(found.high / h.width) - h.start]
    stops = np.arange(-h.start + 256, h.counts.size + 1, 7)
    assert divergence(*map(np.array, own))[0] <= divergence(np.full_like(stops, own[0][0]), stops).min() * 1.1 + 1e-6


@pytest.mark.parametrize("counts", [[7], [0, 0, 7], [*[0] * 600, 3]])
def test_values_in_a_single_bin_give_a_range_up_to_it(counts):
    h = Histogram(np.array(counts), 0, 0.5)
    end = len(counts) * 0.5
    assert entropy_range(h) == Range(0.0, end)
    assert percentile_range(h, percentile=99.0).high == pytest.approx(end, rel=0.01)
    found = mse_range(h, symmetric=False)
    assert found.low == pytest.approx(0.0, abs=0.01)
    assert 0.9 * (end - 0.5) <= found.high <= end
