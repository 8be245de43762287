"""The loop of training: its rate."""

from optimize.training.loop import rate_scale


def test_the_rate_rises_and_then_falls_to_almost_nothing():
    scales = [rate_scale(step, 100, 0.1) for step in range(100)]
    assert scales[9] == max(scales) == 1.0
    assert scales == sorted(scales[:10]) + sorted(scales[10:], reverse=True)
    assert 0 < scales[-1] < 0.02
