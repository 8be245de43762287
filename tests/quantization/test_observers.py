from __future__ import annotations

import numpy as np
import pytest

from optimize.quantization.observers import BINS, MovingAverage, RunningMinMax, StreamingHistogram, make_observer
from optimize.quantization.ranges import Range, spanning

METHODS = ("minmax", "moving_average", "percentile", "entropy", "mse")


def whole(h):
    return spanning(h.start * h.width, (h.start + h.counts.size) * h.width)


def texts(seed=0):
    """Texts of ever other sizes, offsets and spreads, in float32."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 40, 30)
    spreads = 2.0 ** rng.uniform(-6, 6, 30)
    return [
        (rng.standard_normal((1, n, 64)) * s + rng.normal()).astype(np.float32)
        for n, s in zip(sizes, spreads, strict=True)
    ]


def streamed(parts, bins=BINS):
    observer = StreamingHistogram(whole, bins=bins)
    for part in parts:
        observer.update(part)
    return observer.histogram()


@pytest.mark.parametrize("bins", [2, 7, 64, BINS])
def test_merged_bins_are_those_of_a_single_pass_over_all_values(bins):
    parts = texts()
    found = streamed(parts, bins)
    values = np.concatenate([part.ravel() for part in parts]).astype(np.float64)
    places = np.floor(values / found.width).astype(np.int64)
    assert places.min() == found.start
    assert np.array_equal(np.bincount(places - found.start), found.counts)
    assert bins / 4 < found.counts.size <= bins


def test_the_order_of_the_texts_does_not_matter():
    parts = texts()
    one, other = streamed(parts), streamed(sorted(parts, key=lambda part: -np.abs(part).max()))
    together = streamed([np.concatenate([part.ravel() for part in parts])])
    for each in (other, together):
        assert (each.start, each.width) == (one.start, one.width)
        assert np.array_equal(each.counts, one.counts)


def test_what_is_kept_does_not_grow_with_the_number_of_texts():
    observer = StreamingHistogram(whole)
    for part in texts() * 20:
        observer.update(part)
        arrays = [value for value in vars(observer).values() if isinstance(value, np.ndarray)]
        assert [array.base is None for array in arrays] == [True]
        assert arrays[0].size <= BINS
    assert observer.values == 20 * sum(part.size for part in texts())
    assert observer.counts.sum() == observer.values


@pytest.mark.parametrize("value", [1e-30, 1e30, 3e38, -3e38, 1e-44])
def test_values_of_any_size_find_their_bin(value):
    found = streamed([np.array([value], np.float32), np.zeros(3, np.float32), np.array([value / 2], np.float32)])
    assert found.counts.sum() == 5
    assert found.start * found.width <= np.float32(value) < (found.start + found.counts.size) * found.width


def test_values_on_an_edge_belong_to_the_bin_that_begins_there():
    found = streamed([np.array([-1.0, -0.0, 0.0, 1.0, 3.0], np.float32)], bins=5)
    assert (found.start, found.width) == (-1, 1.0)
    assert found.counts.tolist() == [1, 2, 1, 0, 1]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_and_leave_no_trace(method, bad):
    observer = make_observer(method, percentile=99.0, symmetric=False)
    observer.update(np.array([-1.0, 2.0], np.float32))
    before = observer.range()
    with pytest.raises(FloatingPointError):
        observer.update(np.array([1.0, bad, 5.0], np.float32))
    assert observer.range() == before


@pytest.mark.parametrize("method", METHODS)
def test_zeros_alone_give_a_range_with_a_scale(method):
    observer = make_observer(method, percentile=99.0, symmetric=False)
    observer.update(np.zeros((1, 3, 4), np.float32))
    observer.update(np.zeros((1, 0, 4), np.float32))
    assert observer.range() == Range(0.0, 1.0)
    assert observer.values == 12


@pytest.mark.parametrize("method", METHODS)
def test_symmetric_ranges_reach_as_far_down_as_up(method):
    observer = make_observer(method, percentile=99.0, symmetric=True)
    for part in texts():
        observer.update(np.abs(part))
    found = observer.range()
    assert found.low == -found.high
    assert found.high > 0


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy"])
def test_a_range_never_passes_what_was_seen(method):
    observer = make_observer(method, percentile=100.0, symmetric=False)
    for part in texts():
        observer.update(part)
    found = observer.range()
    assert found.low >= min(part.min() for part in texts())
    assert found.high <= max(part.max() for part in texts())


def test_running_ends_are_those_of_all_values():
    observer = RunningMinMax()
    for part in texts():
        observer.update(part)
    assert observer.range() == Range(min(float(p.min()) for p in texts()), max(float(p.max()) for p in texts()))


def test_a_moving_average_weighs_all_texts_nearly_alike_at_first_and_forgets_later():
    observer = MovingAverage(0.99)
    found = []
    for low, high, times in [(-1.0, 2.0, 1), (-3.0, 4.0, 1), (-7.0, 9.0, 2000)]:
        for _ in range(times):
            observer.update(np.array([low, high], np.float32))
        found.append((observer.range().low, observer.range().high))
    assert found[0] == pytest.approx((-1.0, 2.0))
    assert found[1] == pytest.approx((-2.0, 3.0), rel=0.01)
    assert found[2] == pytest.approx((-7.0, 9.0))


def test_half_precision_is_counted_like_single():
    values = texts()[0].astype(np.float16)
    found, expected = streamed([values]), streamed([values.astype(np.float32)])
    assert np.array_equal(found.counts, expected.counts)
