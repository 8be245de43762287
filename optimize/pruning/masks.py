"""Which heads and neurons to keep by the Fisher information of their masks, after Kwon et al. (2022, arXiv
2204.09656).

With the information matrix F taken as diagonal, what is lost by taking heads and neurons away is the sum of their own
entries. Heads cost alike and neurons cost alike, so the best choice under a budget keeps the most important heads and
the most important neurons (where the last layer costs less, those that are most important for what they cost): every
number of heads is tried, with as many neurons as it leaves room for. Rearrangement then looks at the matrix's blocks,
one for a layer's heads and one for its neurons: as long as exchanging one that is kept for one that is not lowers the
loss ½ (1-m)ᵀ F (1-m), the exchange that lowers it most is made.

Neurons come in groups of `multiple` of one layer, of similar importance. Every layer keeps a head and a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optimize.pruning.costs import Costs
from optimize.pruning.evidence import Evidence
from optimize.pruning.sites import Kind, Site

if TYPE_CHECKING:
    from torch import Tensor

LEAST_GAIN = 1e-9
"""As a share of F's trace: exchanges that gain less gain rounding alone, and could go on for ever."""


@dataclass(frozen=True)
class _Group:
    """Some heads or neurons of a site that are kept or dropped together."""

    site: int
    members: Tensor
    importance: float
    cost: float


def search_masks(
    sites: Sequence[Site], evidence: Sequence[Evidence], costs: Costs, *, budget: float, multiple: int
) -> list[Tensor]:
    """A boolean mask for each site: the heads and neurons of the most importance that cost at most the budget."""
    import torch

    groups = _groups(sites, evidence, costs, multiple=multiple)
    heads, neurons = _ranked(groups, sites, "heads"), _ranked(groups, sites, "neurons")
    layers = len(sites) // 2
    best: list[_Group] = []
    most = -1.0
    for count in range(layers, len(heads) + 1):
        kept_heads = heads[:count]
        chosen = kept_heads + _affordable(neurons, budget - _cost(kept_heads), least=layers)
        importance = sum(group.importance for group in chosen)
        if _cost(chosen) <= budget and importance > most:
            best, most = chosen, importance
    masks = [torch.zeros(site.count, dtype=torch.bool) for site in sites]
    for group in best:
        masks[group.site][group.members] = True
    return masks


def _cost(groups: Sequence[_Group]) -> float:
    return sum(group.cost for group in groups)


def _groups(sites: Sequence[Site], evidence: Sequence[Evidence], costs: Costs, *, multiple: int) -> list[list[_Group]]:
    """For each site its groups, the most important one first."""
    found: list[list[_Group]] = []
    for index, (site, one) in enumerate(zip(sites, evidence, strict=True)):
        # F's diagonal: the mean squared gradient of each mask, but for a factor that is the same for all.
        importance = one.masks.double().square().sum(dim=0)
        order = importance.argsort(descending=True, stable=True)
        groups: list[_Group] = []
        for members in order.split(multiple if site.kind == "neurons" else 1):
            groups.append(_Group(index, members, float(importance[members].sum()), costs.of(site, len(members))))
        found.append(groups)
    return found


def _ranked(groups: Sequence[Sequence[_Group]], sites: Sequence[Site], kind: Kind) -> list[_Group]:
    """All groups of a kind: first the best one of each layer, which it keeps, then by importance for what they cost."""
    first: list[_Group] = []
    others: list[_Group] = []
    for own, site in zip(groups, sites, strict=True):
        if site.kind == kind:
            first.append(own[0])
            others += own[1:]
    return first + sorted(others, key=lambda group: -group.importance / group.cost)


def _affordable(groups: Sequence[_Group], budget: float, *, least: int) -> list[_Group]:
    """The first groups that the budget pays for, and the `least` first ones in any case."""
    spent = 0.0
    for count, group in enumerate(groups):
        spent += group.cost
        if count >= least and spent > budget:
            return list(groups[:count])
    return list(groups)


def rearrange(mask: Tensor, evidence: Evidence) -> Tensor:
    """The mask of a site after all exchanges that lower its loss; as many are kept as before."""
    gradients = evidence.masks.double()
    F = gradients.T @ gradients
    own = F.diagonal()
    m = mask.clone()
    while True:
        kept, dropped = m.nonzero().flatten(), (~m).nonzero().flatten()
        if not len(kept) or not len(dropped):
            return m
        # For i that leaves and j that enters, twice the loss changes by
        # (2 F (1-m))_i + F_ii - (2 F (1-m))_j + F_jj - 2 F_ij.
        slope = 2 * F @ (~m).double()
        change = (slope + own)[kept][:, None] + (own - slope)[dropped][None] - 2 * F[kept][:, dropped]
        best = int(change.argmin())
        if float(change.flatten()[best]) >= -LEAST_GAIN * float(own.sum()):
            return m
        leaves, enters = divmod(best, len(dropped))
        m[kept[leaves]], m[dropped[enters]] = False, True
