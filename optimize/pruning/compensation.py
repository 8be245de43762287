"""Which heads and neurons to keep when what the others said is refitted afterwards.

A neuron that others can stand in for is worth little, however much it says. What the best refit of the joining map
leaves of the loss is known in closed form (Hassibi and Stork, 1993): with A the second moment of what the map reads,
G that of its gradients, and S some of its columns W_S, taking them away costs tr(G W_S (A⁻¹_SS)⁻¹ W_Sᵀ), and A⁻¹ and
W after it are known too. Kurtic et al. (2023, ZipLM, arXiv 2302.04089) prune heads and neurons that way with G = 1,
layer by layer; G is what makes the costs of different layers comparable, as in K-FAC (Martens and Grosse, 2015, arXiv
1503.05671).

Each site is taken apart once, from the whole down to one head or group of neurons, least cost first. The budget then
decides how far each goes: steps of all sites are merged by loss per cost saved. Every layer keeps a head and a
group.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optimize.interfaces import Progress
from optimize.pruning.costs import Costs
from optimize.pruning.evidence import Evidence
from optimize.pruning.sites import Site

if TYPE_CHECKING:
    import torch

DAMPING = 0.01
LEAST_STEP = 8
CANDIDATES = 4


@dataclass(frozen=True)
class Step:
    """Taking some heads or neurons of a site away: what that saves, and what it loses for each unit saved."""

    site: int
    members: Any
    saves: float
    price: float


def take_apart(
    sites: Sequence[Site], evidence: Sequence[Evidence], costs: Costs, *, multiple: int, progress: Progress
) -> list[Step]:
    """The steps of all sites, the cheapest for what they save first."""
    steps = []
    for index, (site, found) in enumerate(zip(sites, evidence, strict=True)):
        steps += _take_site_apart(index, site, found, costs, multiple=multiple)
        progress.step("search", index + 1, len(sites))
    return sorted(steps, key=lambda step: step.price)


def keep_within(sites: Sequence[Site], steps: Sequence[Step], costs: Costs, budget: float) -> list[torch.Tensor]:
    """A boolean mask for each site, such that what is kept costs no more than the budget."""
    import torch

    masks = [torch.ones(site.count, dtype=torch.bool) for site in sites]
    for step in _affordable(steps, costs.total(sites), budget):
        masks[step.site][step.members] = False
    return masks


def _affordable(steps: Sequence[Step], total: float, budget: float) -> list[Step]:
    """The first steps that bring the total within the budget, but for the last ones of their sites that need not be."""
    count, left = 0, total
    while count < len(steps) and left > budget:
        left -= steps[count].saves
        count += 1
    taken: list[Step] = []
    needed: set[int] = set()
    for step in reversed(steps[:count]):
        if step.site not in needed and left + step.saves <= budget:
            left += step.saves
            continue
        needed.add(step.site)
        taken.append(step)
    return taken


def _take_site_apart(index: int, site: Site, evidence: Evidence, costs: Costs, *, multiple: int) -> list[Step]:
    """All steps of a site in their order; a step is as dear as the dearest before it, which it needs.

    Where taking some away saves nothing by itself, it makes one step with what follows.
    """
    import torch

    steps: list[Step] = []
    price, left, paid, loss = 0.0, site.count, costs.of(site, site.count), 0.0
    waiting: list[torch.Tensor] = []
    sizes = [1] * (site.count - 1) if site.kind == "heads" else step_sizes(site.count, multiple)
    for members, lost in removals(site, evidence, sizes):
        waiting.append(members)
        loss += lost
        left -= len(members)
        saves = paid - costs.of(site, left)
        if saves > 0:
            price = max(price, loss / saves)
            steps.append(Step(index, torch.cat(waiting), saves, price))
            waiting, loss, paid = [], 0.0, paid - saves
    return steps


def step_sizes(count: int, multiple: int) -> list[int]:
    """How many neurons to take away at a time: a multiple is left after each step, and one in the end."""
    size = multiple * math.ceil(LEAST_STEP / multiple)
    first = count % multiple
    left = count - first
    sizes = [first] if first and left else []
    while left > multiple:
        sizes.append(min(size, left - multiple))
        left -= sizes[-1]
    return sizes


def removals(site: Site, evidence: Evidence, sizes: Sequence[int]) -> list[tuple[torch.Tensor, float]]:
    """For each of the sizes the heads or neurons that cost least by then, and what that is after a refit."""
    import torch

    inverse, effects = _prepare(site, evidence)
    alive = torch.ones(site.count, dtype=torch.bool)
    found = []
    for size in sizes:
        losses = _losses(inverse, effects, site.width).masked_fill(~alive, math.inf)
        cheapest = losses.topk(min(CANDIDATES * size, int(alive.sum())), largest=False).indices
        members = cheapest[:1] if size == 1 else _pick(inverse, effects, cheapest, size)
        columns = (members[:, None] * site.width + torch.arange(site.width)).flatten()
        block = inverse[columns][:, columns]
        moved = torch.linalg.solve(block, torch.cat([inverse[columns], effects[columns]], dim=1))
        found.append((members, float((effects[columns] * moved[:, len(inverse) :]).sum())))
        effects -= inverse[:, columns] @ moved[:, len(inverse) :]
        inverse -= inverse[:, columns] @ moved[:, : len(inverse)]
        alive[members] = False
    return found


def _pick(inverse: torch.Tensor, effects: torch.Tensor, cheapest: torch.Tensor, size: int) -> torch.Tensor:
    """Of the cheapest neurons so many that are cheap together: one at a time, each as if those before were gone."""
    import torch

    block, parts = inverse[cheapest][:, cheapest], effects[cheapest]
    taken = torch.zeros(len(cheapest), dtype=torch.bool)
    for _ in range(size):
        losses = _losses(block, parts, 1).masked_fill(taken, math.inf)
        best = int(losses.argmin())
        taken[best] = True
        pull = block[:, best] / block[best, best].clamp_min(1e-20)
        parts = parts - pull[:, None] * parts[best]
        block = block - pull[:, None] * block[best]
    return cheapest[taken]


def _prepare(site: Site, evidence: Evidence) -> tuple[torch.Tensor, torch.Tensor]:
    """A⁻¹, damped, and Wᵀ G^½; A is a weighted mean over tokens, G a sum, so that losses are sums over texts."""
    import torch

    inputs = evidence.inputs.double() / max(evidence.weight, 1e-300)
    level = float(inputs.diagonal().mean()) or 1.0
    inverse = torch.linalg.inv(inputs + DAMPING * level * torch.eye(len(inputs), dtype=torch.float64))
    values, vectors = torch.linalg.eigh(evidence.outputs.double())
    root = vectors * values.clamp_min(0).sqrt()
    return inverse.float(), (site.joins.weight.detach().double().T @ root).float()


def _losses(inverse: torch.Tensor, effects: torch.Tensor, width: int) -> torch.Tensor:
    """What each head or neuron costs if it is taken away alone, [count]."""
    import torch

    count = len(inverse) // width
    if width == 1:
        return effects.square().sum(dim=1) / inverse.diagonal().clamp_min(1e-20)
    blocks = torch.stack([inverse[i : i + width, i : i + width] for i in range(0, count * width, width)])
    parts = effects.reshape(count, width, -1)
    floor = 1e-12 * torch.eye(width) * blocks.diagonal(dim1=1, dim2=2).amax(dim=1)[:, None, None].clamp_min(1e-20)
    return (parts * torch.linalg.solve(blocks + floor, parts)).sum(dim=(1, 2))
