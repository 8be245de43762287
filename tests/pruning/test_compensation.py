"""What a removal costs when the rest makes up for it."""

import numpy as np
import pytest
import torch

from optimize.pruning.compensation import removals, step_sizes
from optimize.pruning.evidence import Evidence
from optimize.pruning.sites import Site


def test_of_twins_one_is_taken_away_first_at_next_to_no_cost():
    torch.manual_seed(0)
    reads = torch.randn(2000, 24).repeat(1, 2)
    site = Site(0, "neurons", torch.nn.Linear(48, 16), None, 1)
    found = list(removals(site, Evidence(None, reads.T @ reads, torch.eye(16), 2000.0), [8] * 4))
    first, rest = found[:3], found[3]
    assert sorted(int(member) % 24 for members, _ in first for member in members) == list(range(24))
    assert sum(loss for _, loss in first) < 0.05 * rest[1]


def test_what_a_removal_costs_is_what_the_best_refit_leaves(dense):
    *_, sites, evidence = dense("question-answering")
    site, found = sites[1], evidence[1]
    inputs = found.inputs.double() / found.weight
    inputs = inputs + 0.01 * inputs.diagonal().mean() * torch.eye(len(inputs), dtype=torch.float64)
    gone, total = torch.zeros(site.count, dtype=torch.bool), 0.0
    for members, loss in removals(site, found, [8, 8]):
        gone[members] = True
        total += loss
        weight = site.projection.weight.detach().double()
        kept = ~gone
        moved = torch.linalg.solve(inputs[kept][:, kept], inputs[kept][:, gone])
        change = weight.clone()
        change[:, kept], change[:, gone] = -weight[:, gone] @ moved.T, weight[:, gone]
        expected = float(torch.trace(found.outputs.double() @ change @ inputs @ change.T))
        assert np.isclose(total, expected, rtol=1e-2)


@pytest.mark.parametrize(("count", "multiple"), [(256, 8), (250, 16), (16, 16), (5, 16), (40, 1), (100, 32)])
def test_steps_leave_multiples_and_at_least_one(count, multiple):
    left = count
    for size in step_sizes(count, multiple):
        left -= size
        assert left % multiple == 0
    assert left == min(count, multiple)
