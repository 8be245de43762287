"""Which heads and neurons to keep by the Fisher information of their masks, after Kwon et al. (2022, arXiv
2204.09656).

With the information matrix taken as diagonal, what is lost by taking heads and neurons away is the sum of their own
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
from typing import TYPE_CHECKING, Any

from optimize.pruning.costs import Costs, Wanted
from optimize.pruning.evidence import Evidence
from optimize.pruning.sites import Kind, Site

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class _Group:
    """Some heads or neurons of a site that are kept or dropped together."""

    site: int
    members: Any
    importance: float
    cost: float


def search_masks(
    sites: Sequence[Site], evidence: Sequence[Evidence], costs: Costs, wanted: Wanted
) -> list[torch.Tensor]:
    """A boolean mask for each site: the heads and neurons of the most importance within the wanted cost."""
    import torch

    groups = _groups(sites, evidence, costs, multiple=wanted.multiple)
    heads, neurons = _ranked(groups, sites, "heads"), _ranked(groups, sites, "neurons")
    layers = len(sites) // 2
    best: tuple[float, list[_Group]] = (-1.0, [])
    for count in range(layers, len(heads) + 1):
        left = wanted.cost - sum(group.cost for group in heads[:count])
        chosen = heads[:count] + _affordable(neurons, left, least=layers)
        value = sum(group.importance for group in chosen)
        if sum(group.cost for group in chosen) <= wanted.cost and value > best[0]:
            best = (value, chosen)
    masks = [torch.zeros(site.count, dtype=torch.bool) for site in sites]
    for group in best[1]:
        masks[group.site][group.members] = True
    return masks


def _groups(sites: Sequence[Site], evidence: Sequence[Evidence], costs: Costs, *, multiple: int) -> list[list[_Group]]:
    """For each site its groups, the most important one first."""
    found = []
    for index, (site, one) in enumerate(zip(sites, evidence, strict=True)):
        importance = one.masks.double().square().sum(dim=0)
        parts = importance.argsort(descending=True, stable=True).split(multiple if site.kind == "neurons" else 1)
        found.append([_Group(index, part, float(importance[part].sum()), costs.of(site, len(part))) for part in parts])
    return found


def _ranked(groups: Sequence[Sequence[_Group]], sites: Sequence[Site], kind: Kind) -> list[_Group]:
    """All groups of a kind: first the best one of each layer, which it keeps, then by importance for what they cost."""
    chosen = [own for own, site in zip(groups, sites, strict=True) if site.kind == kind]
    others = [group for own in chosen for group in own[1:]]
    return [own[0] for own in chosen] + sorted(others, key=lambda group: -group.importance / group.cost)


def _affordable(groups: Sequence[_Group], budget: float, *, least: int) -> list[_Group]:
    """The first groups that the budget pays for, and the `least` first ones in any case."""
    spent = 0.0
    for count, group in enumerate(groups):
        spent += group.cost
        if count >= least and spent > budget:
            return list(groups[:count])
    return list(groups)


def rearrange(mask: torch.Tensor, evidence: Evidence) -> torch.Tensor:
    """The mask of a site after all exchanges that lower its loss; as many are kept as before."""

    masks = evidence.masks.double()
    information = masks.T @ masks
    own = information.diagonal()
    mask = mask.clone()
    while True:
        kept, dropped = mask.nonzero().flatten(), (~mask).nonzero().flatten()
        if not len(kept) or not len(dropped):
            return mask
        pull = 2 * information @ (~mask).double()
        change = (pull + own)[kept][:, None] + (own - pull)[dropped][None] - 2 * information[kept][:, dropped]
        best = int(change.argmin())
        if float(change.flatten()[best]) >= -1e-9 * float(own.sum()):
            return mask
        leaves, enters = divmod(best, len(dropped))
        mask[kept[leaves]], mask[dropped[enters]] = False, True
