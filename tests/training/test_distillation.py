"""The losses of a student: what they are of each kind of answer."""

import math

import pytest
import torch

from optimize.evaluate.drift import divergence
from optimize.training.distillation import row_losses


def test_the_loss_of_classes_is_the_kl_divergence_that_drift_reports():
    ours, theirs = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0))
    found = row_losses(ours, theirs, "classes", temperature=1.0)
    expected = divergence([(ours.numpy(), theirs.numpy())])
    assert found.shape == (6,)
    assert float(found.mean()) == pytest.approx(expected, rel=1e-4)


def test_the_loss_of_sets_treats_every_class_by_itself():
    ours, theirs = torch.tensor([[0.3, -2.0]]), torch.tensor([[1.5, -2.0]])
    p, q = 1 / (1 + math.exp(-1.5)), 1 / (1 + math.exp(-0.3))
    expected = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    assert float(row_losses(ours, theirs, "sets", temperature=1.0)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kind", ["classes", "sets", "values", "vectors"])
def test_the_same_answers_lose_nothing_and_others_do(kind):
    rows = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    assert row_losses(rows, rows, kind, temperature=2.0).abs().max() < 1e-6
    assert (row_losses(rows + torch.arange(6), rows, kind, temperature=2.0) > 1e-3).all()
