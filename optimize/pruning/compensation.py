"""Which heads and neurons to keep when what is left is refitted afterwards.

A neuron that others can stand in for is worth little, however much it contributes. What the best refit of the output
projection W leaves of the loss is known in closed form (Hassibi and Stork, 1993): with A the second moment of what the
projection reads, G that of its gradients, and S some of its columns, taking these away costs
tr(G W_S (A⁻¹_SS)⁻¹ W_Sᵀ), and A⁻¹ and W after it are known too. Kurtic et al. (2023, ZipLM, arXiv 2302.04089) prune
heads and neurons that way with G = 1, layer by layer; G is what makes the costs of different layers comparable, as in
K-FAC (Martens and Grosse, 2015, arXiv 1503.05671).

Only E = Wᵀ G^½ is needed of W and G: the cost is then |(A⁻¹_SS)^-½ E_S|², and E after a refit follows as W does.

Each site is emptied once, from the whole down to one head or group of neurons, least cost first. The budget then
decides how far each goes: removals of all sites are merged by loss per cost saved. Every layer keeps a head and a
group.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optimize.interfaces import Progress
from optimize.pruning.costs import Costs
from optimize.pruning.evidence import Evidence
from optimize.pruning.sites import Site

if TYPE_CHECKING:
    from torch import Tensor

DAMPING = 0.01
"""Added to A's diagonal, as a share of its mean: with fewer tokens than columns A has no inverse."""
LEAST_STEP = 8
"""Neurons that go at once, at least: a layer has 3,072, and each removal solves and updates whole matrices."""
CANDIDATES = 4
"""So many times the neurons to remove are looked at together; the others are too dear by themselves."""
TINY = 1e-20
"""A⁻¹ of what is gone is zero, and is not to be divided by."""


@dataclass(frozen=True)
class Removal:
    """Taking some heads or neurons of a site away: what that saves, and what it loses for each unit saved."""

    site: int
    members: Tensor
    saves: float
    price: float


def plan_removals(
    sites: Sequence[Site], evidence: Sequence[Evidence], costs: Costs, *, multiple: int, progress: Progress
) -> list[Removal]:
    """The removals of all sites, the cheapest for what they save first."""
    found: list[Removal] = []
    for index, (site, one) in enumerate(zip(sites, evidence, strict=True)):
        found += _removals_of_site(index, site, one, costs, multiple=multiple)
        progress.step("search", index + 1, len(sites))
    return sorted(found, key=lambda removal: removal.price)


def keep_within(sites: Sequence[Site], planned: Sequence[Removal], costs: Costs, budget: float) -> list[Tensor]:
    """A boolean mask for each site, such that what is kept costs no more than the budget."""
    import torch

    masks = [torch.ones(site.count, dtype=torch.bool) for site in sites]
    for removal in _needed(planned, costs.total(sites), budget):
        masks[removal.site][removal.members] = False
    return masks


def _needed(planned: Sequence[Removal], total: float, budget: float) -> list[Removal]:
    """The first removals that bring the total within the budget, but for the last ones of sites that need not be."""
    count, left = 0, total
    while count < len(planned) and left > budget:
        left -= planned[count].saves
        count += 1
    taken: list[Removal] = []
    settled: set[int] = set()
    # The last one may have saved much more than was missing, so that dearer ones before it can be undone.
    for removal in reversed(planned[:count]):
        if removal.site not in settled and left + removal.saves <= budget:
            left += removal.saves
            continue
        # A site's removals build on one another: where one stays, those before it do too.
        settled.add(removal.site)
        taken.append(removal)
    return taken


def _removals_of_site(index: int, site: Site, evidence: Evidence, costs: Costs, *, multiple: int) -> Iterator[Removal]:
    """All removals of a site in their order; one is as dear as the dearest before it, which it needs.

    Where taking some away saves nothing by itself, it makes one removal with what follows.
    """
    import torch

    price, left, cost, loss = 0.0, site.count, costs.of(site, site.count), 0.0
    waiting: list[Tensor] = []
    sizes = [1] * (site.count - 1) if site.kind == "heads" else step_sizes(site.count, multiple)
    for members, own_loss in removals(site, evidence, sizes):
        waiting.append(members)
        loss += own_loss
        left -= len(members)
        saves = cost - costs.of(site, left)
        if saves > 0:
            price = max(price, loss / saves)
            yield Removal(index, torch.cat(waiting), saves, price)
            waiting, loss, cost = [], 0.0, cost - saves


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


def removals(site: Site, evidence: Evidence, sizes: Sequence[int]) -> Iterator[tuple[Tensor, float]]:
    """For each of the sizes the heads or neurons that cost least by then, and what that is after a refit."""
    import torch

    A_inv, E = _prepare(site, evidence)
    alive = torch.ones(site.count, dtype=torch.bool)
    for size in sizes:
        # Candidates are those that cost least by themselves; of these go the ones that cost least together.
        losses = _losses(A_inv, E, site.width).masked_fill(~alive, math.inf)
        cheapest = losses.topk(min(CANDIDATES * size, int(alive.sum())), largest=False).indices
        members = cheapest[:1] if size == 1 else _pick(A_inv, E, cheapest, size)
        S = (members[:, None] * site.width + torch.arange(site.width)).flatten()
        # (A⁻¹_SS)⁻¹ times the rows S of A⁻¹ and of E, by one factorization.
        solved = torch.linalg.solve(A_inv[S][:, S], torch.cat([A_inv[S], E[S]], dim=1))
        solved_A_inv, solved_E = solved[:, : len(A_inv)], solved[:, len(A_inv) :]
        # The loss: tr(E_Sᵀ (A⁻¹_SS)⁻¹ E_S).
        loss = float((E[S] * solved_E).sum())
        # What the rest becomes by the refit: block elimination of the rows and columns S.
        E -= A_inv[:, S] @ solved_E
        A_inv -= A_inv[:, S] @ solved_A_inv
        alive[members] = False
        yield members, loss


def _pick(A_inv: Tensor, E: Tensor, cheapest: Tensor, size: int) -> Tensor:
    """Of the cheapest neurons so many that are cheap together: one at a time, each as if those before were gone."""
    import torch

    A_inv, E = A_inv[cheapest][:, cheapest], E[cheapest]
    taken = torch.zeros(len(cheapest), dtype=torch.bool)
    for _ in range(size):
        losses = _losses(A_inv, E, 1).masked_fill(taken, math.inf)
        best = int(losses.argmin())
        taken[best] = True
        # The same elimination as in `removals`, of one row and column.
        ratio = A_inv[:, best] / A_inv[best, best].clamp_min(TINY)
        E = E - ratio[:, None] * E[best]
        A_inv = A_inv - ratio[:, None] * A_inv[best]
    return cheapest[taken]


def _prepare(site: Site, evidence: Evidence) -> tuple[Tensor, Tensor]:
    """A⁻¹, damped, and E; A is a weighted mean over tokens, G a sum, so that losses are sums over texts."""
    import torch

    A = evidence.inputs.double() / max(evidence.weight, 1e-300)
    # A site on which no answer depends has A = 0; any level does then.
    level = float(A.diagonal().mean()) or 1.0
    A_inv = torch.linalg.inv(A + DAMPING * level * torch.eye(len(A), dtype=torch.float64))
    # G^½ by eigenvalues: G is often singular, which a Cholesky factor would not survive.
    values, vectors = torch.linalg.eigh(evidence.outputs.double())
    G_root = vectors * values.clamp_min(0).sqrt()
    return A_inv.float(), (site.projection.weight.detach().double().T @ G_root).float()


def _losses(A_inv: Tensor, E: Tensor, width: int) -> Tensor:
    """What each head or neuron costs if it is taken away alone, [count]: E_Sᵀ (A⁻¹_SS)⁻¹ E_S of its `width` columns."""
    import torch

    count = len(A_inv) // width
    if width == 1:
        return E.square().sum(dim=1) / A_inv.diagonal().clamp_min(TINY)
    blocks = torch.stack([A_inv[i : i + width, i : i + width] for i in range(0, count * width, width)])
    E_blocks = E.reshape(count, width, -1)
    # A floor under each block's diagonal: that of a head which is gone is singular.
    scale = blocks.diagonal(dim1=1, dim2=2).amax(dim=1)[:, None, None].clamp_min(TINY)
    floor = 1e-12 * torch.eye(width) * scale
    return (E_blocks * torch.linalg.solve(blocks + floor, E_blocks)).sum(dim=(1, 2))
