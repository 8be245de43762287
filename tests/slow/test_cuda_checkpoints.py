"""FP16 for GPUs on a real checkpoint, answers computed on the CPU; skipped where it is absent."""

from __future__ import annotations

import numpy as np
import pytest
from slow.checkpoints import ABSENT, REASON

CASES = ("sst2",)

# The stages of cuda.yaml, on less data than by default, and by limits that so few can tell.
PIPELINE = """
target: cuda
stages:
  - export: {readout_slice: false}
  - fuse
  - convert_fp16: {calibration_tokens: 8192, tuning_tokens: 8192}
gates: {max_relative_metric_drop: 0.02, min_agreement: 0.98}
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(ABSENT, reason=REASON),
]


@pytest.fixture
def optimized(carry_out):
    """The manifest of a checkpoint's run; made once."""
    return lambda name: carry_out(name, PIPELINE, 64, 64, build_only=True)[1]


@pytest.mark.parametrize("name", CASES)
def test_fp16_loses_next_to_nothing(name, optimized):
    manifest = optimized(name)
    last = manifest.measurements[-1]
    assert last.name == "convert_fp16"
    assert abs(last.metric.relative_drop) <= 0.01
    assert last.drift.agreement >= 0.98
    assert last.drift.padding_max_abs <= 0.1 * np.maximum(last.drift.max_abs, 1e-2)
    assert manifest.verdict.outcome == "unverified"


@pytest.mark.parametrize("name", CASES)
def test_everything_is_fused_and_halved(name, optimized):
    manifest = optimized(name)
    facts = {key: value for record in manifest.stages for key, value in record.facts.items()}
    assert (facts["Attention"], facts["SkipLayerNormalization"], facts["EmbedLayerNormalization"]) == (6, 12, 1)
    assert facts["BiasGelu"] == 6
    assert facts["fp32_nodes"] == 0
    assert manifest.measurements[-1].size.ratio <= 0.51
