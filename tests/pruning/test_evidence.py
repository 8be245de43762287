"""What is gathered of the dense model: directions and gradients of masks."""

import numpy as np
import pytest
import torch

from optimize.heads import HEADS
from optimize.pruning.evidence import directions, gather
from optimize.training.batches import answer, answers_of
from optimize.training.distillation import row_losses

NAMES = sorted(HEADS)


@pytest.mark.parametrize("kind", ["classes", "values", "sets", "vectors"])
def test_directions_have_the_covariance_of_the_divergence(kind):
    torch.manual_seed(0)
    row = torch.tensor([0.3, -1.2, 0.8, 0.1], dtype=torch.float64)
    drawn = directions(row.repeat(200_000, 1), kind)
    loss = lambda x: row_losses(x[None], row[None], kind, temperature=1.0).sum()  # noqa: E731
    wanted = torch.autograd.functional.hessian(loss, row)
    scale = {"values": 2 / 4, "vectors": 1 + 2}
    if kind == "vectors":
        unit = row / row.norm()
        wanted = (torch.eye(4, dtype=torch.float64) - torch.outer(unit, unit)) / row.square().sum()
    else:
        wanted = wanted / scale.get(kind, 1)
    assert torch.allclose(drawn.T @ drawn / len(drawn), wanted, atol=0.01)


@pytest.mark.parametrize("head", NAMES)
def test_masks_gradients_are_those_of_a_masked_model(head, dense):
    here, model, batches, sites, _ = dense(head)
    kind = answers_of(here.head, here.calibration)
    torch.manual_seed(3)
    again = gather(model, sites, batches[:1], kind, here)
    torch.manual_seed(3)
    vector = directions(answer(model, batches[0], here.head).rows.detach(), kind)

    def slope(site, unit, size=1e-2):
        found = []
        for factor in (1 + size, 1 - size):
            columns = slice(unit * site.width, (unit + 1) * site.width)
            whole = site.projection.weight.data.clone()
            site.projection.weight.data[:, columns] *= factor
            found.append(float((vector * answer(model, batches[0], here.head).rows.detach()).sum()))
            site.projection.weight.data.copy_(whole)
        return (found[0] - found[1]) / (2 * size)

    for site, found in zip(sites, again, strict=True):
        unit = int(found.masks[0].abs().argmax())
        assert found.masks.shape == (1, site.count)
        assert np.isclose(float(found.masks[0, unit]), slope(site, unit), rtol=0.05, atol=1e-4)
