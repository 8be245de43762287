"""Zeros among the weights of one map, and what is left making up for them (SparseGPT)."""

import numpy as np
import pytest
import torch

from optimize.pruning.sparsegpt import Scheme, inverse_root, remove_weights

PATTERNS = ["unstructured", "2:4"]


@pytest.fixture(scope="module")
def problem():
    """A map [6, 16 + 1], correlated inputs with a mean of their own, and their second moment."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(16, 16, generator=generator, dtype=torch.float64)
    inputs = torch.randn(400, 16, generator=generator, dtype=torch.float64) @ mix + 3.0
    inputs = torch.cat([inputs, torch.ones(400, 1, dtype=torch.float64)], dim=1)
    return torch.randn(6, 17, generator=generator, dtype=torch.float64), inputs, inputs.T @ inputs


@pytest.mark.parametrize("pattern", PATTERNS)
def test_what_is_left_makes_up_for_the_zeros(pattern, problem):
    weight, inputs, moment = problem
    after = remove_weights(weight, moment, Scheme(pattern, 0.5, 1e-6))
    alone = weight.masked_fill(after == 0, 0.0)
    error, without = (float(((each - weight) @ inputs.T).square().sum()) for each in (after, alone))
    assert int((after[:, :-1] == 0).sum()) == 48
    assert error < 0.5 * without


def test_one_zero_costs_what_the_closed_form_says_and_goes_where_it_costs_least(problem):
    weight, inputs, moment = problem
    inverse = torch.linalg.inv(moment)
    for row in weight:
        after = remove_weights(row[None], moment, Scheme("unstructured", 1 / 16, 1e-12))[0]
        (gone,) = (after == 0).nonzero().flatten().tolist()
        error = float(((after - row) @ inputs.T).square().sum())
        tail = torch.linalg.inv(moment[gone:, gone:])  # only what comes after it may move
        assert np.isclose(error, float(row[gone] ** 2 / tail[0, 0]), rtol=1e-4)
        assert torch.equal(after[:gone], row[:gone])
    assert inverse.isfinite().all()


def test_the_root_is_that_of_the_damped_inverse(problem):
    *_, moment = problem
    root = inverse_root(moment, 0.1)
    damped = moment + 0.1 * moment.diagonal()[:-1].mean() * torch.diag(torch.tensor([1.0] * 16 + [0.0]))
    assert torch.allclose(root.T @ root @ damped, torch.eye(17, dtype=torch.float64), atol=1e-4)
    assert torch.equal(root, root.triu())
