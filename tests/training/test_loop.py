"""The loop of training: its rate, and the order of batches."""

from itertools import islice

from optimize.training.loop import _own_batches, rate_scale
from optimize.training.state import Learner


def test_the_rate_rises_and_then_falls_to_almost_nothing():
    scales = [rate_scale(step, 100, 0.1) for step in range(100)]
    assert scales[9] == max(scales) == 1.0
    assert scales == sorted(scales[:10]) + sorted(scales[10:], reverse=True)
    assert 0 < scales[-1] < 0.02


def test_each_order_shows_all_batches_and_another_one_first():
    learner = Learner(parameters=(), loss=lambda _: None, evaluate=lambda _: 0.0)
    batches = list(range(20))
    shown = [list(islice(_own_batches(learner, batches, seed, done=0), 20)) for seed in (7, 8)]
    assert shown[0] != shown[1]
    assert all(sorted(each) == batches for each in shown)
    assert list(islice(_own_batches(learner, batches, 7, done=5), 15)) == shown[0][5:]
