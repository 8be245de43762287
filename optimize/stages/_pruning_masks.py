"""Which heads and neurons to keep by the Fisher information of their masks, after Kwon et al. (2022, arXiv 2204.09656).

With the information matrix taken as diagonal, what is lost by taking heads and neurons away is the sum of their own
entries. Heads cost alike and neurons cost alike, so the best choice under a budget keeps the most important heads and
the most important neurons: every number of heads is tried, with as many neurons as it leaves room for. Rearrangement
then looks at the matrix's blocks, one for a layer's heads and one for its neurons: as long as exchanging one that is
kept for one that is not lowers the loss ½ (1-m)ᵀ F (1-m), the exchange that lowers it most is made.

Neurons come in groups of `multiple` of one layer, of similar importance. Every layer keeps a head and a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optimize.stages._pruning_evidence import Evidence
from optimize.stages._pruning_sites import Costs, Kind, Site, Wanted

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class _Group:
    """Some heads or neurons of a site that are kept or dropped together."""

    site: int
    members: Any
    importance: float


def search_masks(
    sites: Sequence[Site], evidence: Sequence[Evidence], costs: Costs, wanted: Wanted
) -> list[torch.Tensor]:
    """A boolean mask for each site: the heads and neurons of the most importance within the wanted operations."""
    import torch

    heads = _ranked(sites, evidence, "heads", multiple=1)
    neurons = _ranked(sites, evidence, "neurons", multiple=wanted.multiple)
    layers = len(sites) // 2
    best: tuple[float, list[_Group]] = (-1.0, [])
    for count in range(layers, len(heads) + 1):
        chosen = heads[:count]
        chosen += _affordable(neurons, costs, budget=wanted.operations - count * costs.heads, least=layers)
        spent = sum(costs.of(sites[group.site], len(group.members)) for group in chosen)
        value = sum(group.importance for group in chosen)
        if spent <= wanted.operations and value > best[0]:
            best = (value, chosen)
    masks = [torch.zeros(site.count, dtype=torch.bool) for site in sites]
    for group in best[1]:
        masks[group.site][group.members] = True
    return masks


def _ranked(sites: Sequence[Site], evidence: Sequence[Evidence], kind: Kind, *, multiple: int) -> list[_Group]:
    """All groups of a kind, first the best one of each layer, which it keeps, then the others by importance each."""
    first, others = [], []
    for index, (site, found) in enumerate(zip(sites, evidence, strict=True)):
        if site.kind != kind:
            continue
        importance = found.masks.double().square().sum(dim=0)
        parts = importance.argsort(descending=True, stable=True).split(multiple)
        groups = [_Group(index, part, float(importance[part].sum())) for part in parts]
        first.append(groups[0])
        others += groups[1:]
    return first + sorted(others, key=lambda group: -group.importance / len(group.members))


def _affordable(groups: Sequence[_Group], costs: Costs, *, budget: float, least: int) -> list[_Group]:
    """The first groups of neurons that the budget pays for, and the `least` first ones in any case."""
    count, spent = 0, 0.0
    for group in groups:
        spent += len(group.members) * costs.neurons
        if count >= least and spent > budget:
            break
        count += 1
    return list(groups[:count])


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
