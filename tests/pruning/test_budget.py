"""The smallest budget within a loss: by which end of an interval the loss counts."""

from types import SimpleNamespace

import pytest

from optimize.evaluate.judge import Loss
from optimize.pruning.budget import LOSS, Pruned, find_fastest
from optimize.rule import around


def pruned(budget):
    """A model that loses as much of its score as it is pruned, ten times over, known to ± 2 % of it."""
    lost = (1.0 - budget) / 10
    estimates = {LOSS: around(lost, 0.02, confidence=0.95)}
    return Pruned(budget, None, None, Loss(0.9, lost, lost, 1.0, 0.0, 40.0, 0.02, estimates))


@pytest.mark.parametrize(("rule", "smallest"), [("estimate", 0.5), ("not_worse", 0.5), ("proven", 0.85)])
def test_the_smallest_budget_is_the_one_whose_loss_keeps_to_the_rule(rule, smallest, silent):
    space = SimpleNamespace(smallest_budget=0.05)
    found, tried = find_fastest(pruned, space, 0.05, rule, silent)
    assert found.budget == pytest.approx(smallest)
    assert {row["within"] for row in tried} == {True, False}


def test_a_loss_that_nobody_can_prove_within_leaves_the_model_whole(silent):
    found, tried = find_fastest(pruned, SimpleNamespace(smallest_budget=0.05), 0.01, "proven", silent)
    assert found.budget == 1.0
    assert not any(row["within"] for row in tried)
