"""OpenVINO's INT8 on a real checkpoint of one head; skipped where they are not at hand. The README has all six."""

from __future__ import annotations

import pytest
from slow.checkpoints import ABSENT, REASON

CASES = ("conll2003",)

# The stages of openvino-int8.yaml, judged on less tuning data than by default, and by limits that so few can tell.
PIPELINE = """
target: openvino
stages:
  - export: {lean: true}
  - convert_openvino
  - quantize_openvino: {tuning_tokens: 8192}
gates: {max_relative_metric_drop: 0.05, min_agreement: 0.8}
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(ABSENT, reason=REASON),
    pytest.mark.usefixtures("few_runs"),
]


@pytest.fixture
def optimized(carry_out):
    """The manifest of a checkpoint's run; made once."""
    return lambda name: carry_out(name, PIPELINE, 64, 128)[1]


@pytest.mark.parametrize("name", CASES)
def test_int8_keeps_the_score_and_the_decisions(name, optimized):
    last = optimized(name).measurements[-1]

    assert last.name == "quantize_openvino"
    assert last.metric.relative_drop <= 0.03
    assert last.drift.agreement >= 0.95


@pytest.mark.parametrize("name", CASES)
def test_the_conversion_alone_loses_nothing(name, optimized):
    reference, converted = optimized(name).measurements[1:3]

    assert (reference.name, converted.name) == ("openvino-fp32", "convert_openvino")
    for each in (reference, converted):
        assert each.metric.drop == pytest.approx(0.0, abs=2e-3)
        assert each.drift.agreement >= 0.998


@pytest.mark.parametrize("name", CASES)
def test_int8_takes_little_more_than_a_quarter_of_the_bytes_and_nothing_stays_in_float(name, optimized):
    manifest = optimized(name)

    assert manifest.measurements[-1].size.ratio <= 0.27
    assert manifest.stages[-1].facts["float_share"] == 0.0
    assert manifest.stages[-1].facts["tuning_limits"] == "met"


@pytest.mark.parametrize("name", CASES)
def test_padding_and_batch_mates_change_far_less_than_rounding_does(name, optimized):
    drift = optimized(name).measurements[-1].drift

    assert drift.padding_max_abs <= 0.1 * drift.max_abs
    assert drift.batch_max_abs <= 0.1 * drift.max_abs
