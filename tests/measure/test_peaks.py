"""How fast the machine multiplies: of each type that it has, the fastest of the products."""

from __future__ import annotations

import pytest
from doubles import Silent

from optimize.measure import peaks
from optimize.measure.peaks import Peak, find_peaks


@pytest.mark.parametrize(("reason", "kinds"), [("no", ["FP32", "INT8"]), (None, ["FP32", "INT8", "BF16"])])
def test_each_type_that_the_cpu_has_is_measured(reason, kinds, monkeypatch):
    monkeypatch.setattr(peaks, "SIZES", ((4, 8, 8), (64, 64, 64)))
    monkeypatch.setattr(peaks, "SECONDS", 0.0)
    monkeypatch.setattr(peaks, "why_no_bf16", lambda: reason)
    found = find_peaks(1, progress=Silent())

    assert [each.kind for each in found] == kinds
    assert all(each.size in peaks.SIZES and each.operations_per_second > 0 for each in found)


def test_the_products_are_those_that_they_are_called():
    """Ones times ones sum to the inner dimension."""
    for prepare in (peaks._float, peaks._integer):
        (product,) = prepare(2, 48, 3, 1)()
        assert product.tolist() == [[48] * 3] * 2
    assert peaks._bfloat16(2, 48, 3, 1)().shape == (2, 3)


def test_a_peak_says_how_long_operations_take():
    assert Peak("INT8", (1, 1, 1), 4e11).milliseconds(2e9) == pytest.approx(5.0)
