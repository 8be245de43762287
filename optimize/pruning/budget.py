"""How far to prune: whether a budget leaves room for every layer, and the smallest one that costs little enough."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optimize.errors import StageError
from optimize.evaluate.judge import Loss
from optimize.interfaces import Progress
from optimize.pruning.costs import Costs
from optimize.pruning.sites import Site
from optimize.pruning.times import Table
from optimize.rule import Rule, for_a_search, missed

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LOSS = "max_relative_metric_drop"
"""The limit that the loss allowed is one of."""
STEP = 0.025
"""The search tries multiples of this: each try costs a refit, and tuning data cannot rank closer budgets."""


@dataclass(frozen=True)
class Pruned:
    """What a budget left of a model, and what that lost on tuning data, before least squares and after."""

    budget: float
    model: PreTrainedModel
    untuned: Loss | None
    loss: Loss


@dataclass(frozen=True)
class SearchSpace:
    """What can be pruned of a model, and what its layers cost; budgets are shares of what the `given` model costs."""

    sites: Sequence[Site]
    costs: Costs
    given: float
    multiple: int

    @property
    def smallest_budget(self) -> float:
        """The budget that leaves one head and one group of neurons in each layer."""
        cost = 0.0
        for site in self.sites:
            cost += self.costs.of(site, 1 if site.kind == "heads" else min(self.multiple, site.count))
        return (self.costs.fixed + cost) / self.given

    def require(self, budget: float) -> None:
        """Refuse a budget that leaves a layer without a head or without neurons."""
        if budget < self.smallest_budget:
            raise StageError(
                f"prune: a budget of {budget:g} cannot keep a head and {self.multiple} neurons in each of "
                f"{len(self.sites) // 2} layers, which take {self.smallest_budget:.3f} of the encoder; raise 'budget' "
                "or 'drop_layers'"
            )


def find_fastest(
    prune_to: Callable[[float], Pruned], space: SearchSpace, within: float, rule: Rule, progress: Progress
) -> tuple[Pruned, Table]:
    """The smallest budget whose loss on tuning data stays within a share of the metric, by bisection, and all tried.

    The limits' own rule says what that means, as far as it does where one of many is taken.

    Where none does, no head and no neuron goes. Where tuning data are too few to know so small a loss, that is said.
    """
    best: Pruned | None = None
    rows: Table = []
    least, most = math.ceil(space.smallest_budget / STEP), round(1 / STEP)
    while least < most:
        middle = (least + most) // 2
        pruned = prune_to(STEP * middle)
        found = pruned.loss.estimate(LOSS)
        inside = not missed(for_a_search(rule), LOSS, within, found)
        rows.append({"budget": pruned.budget, **pruned.loss.facts("tuning"), "within": inside})
        progress.say(
            f"prune: budget {pruned.budget:.3f}: {pruned.loss.relative_drop:+.2%} on tuning data, "
            f"{'within' if inside else 'beyond'} {within:.2%}"
        )
        if inside:
            best, most = pruned, middle
        else:
            least = middle + 1
    if best and best.loss.relative_error > within:
        progress.say(
            f"prune: this many tuning data know the loss to ± {best.loss.relative_error:.2%} only (standard error); "
            f"for {within:.2%} raise 'tuning_tokens', or give more with --tuning-examples"
        )
    return best or prune_to(1.0), rows
