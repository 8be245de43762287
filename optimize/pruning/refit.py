"""Let what is left of a pruned model stand in for what was taken away, layer by layer, by least squares.

Kwon et al. (2022, arXiv 2204.09656) rescale each head and neuron that is left, so that every layer's output comes
nearest to the dense model's; such masks are folded into the columns of the joining map. Refitting the map itself,
bias included, costs no more data and leaves less of an error (`tune: weights`).

Sites are fitted in the order in which a text passes them, each to the dense model's sum before its LayerNorm, so
errors of the layers before are made up for as well. Where layers were dropped behind one, its neurons are fitted to
the sum of the last of them, whose LayerNorm the layer has taken over (`pruning.layers`). The ridge pulls towards the
weights as they are, never towards zero. Only tokens that answers depend on count in the last layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from optimize.checkpoint import encoder_layers
from optimize.errors import StageError
from optimize.interfaces import Context, Head
from optimize.pruning.passage import counting, first_inputs, noted
from optimize.pruning.sites import Site, find_sites
from optimize.training.batches import Batch

if TYPE_CHECKING:
    import torch

Tune = Literal["weights", "masks"]
LARGEST_MASK = 10.0
BIAS_RIDGE = 1e-6


@dataclass
class Passage:
    """One batch on its way through both models: what the next layer reads, and its attention mask.

    `passed` layers of the dense model are behind it.
    """

    batch: Batch
    mask: Any
    pruned: Any
    dense: Any
    passed: int = 0


@dataclass(frozen=True)
class Sums:
    """Second moments [K + 1, K + 1] of what a site reads, a one appended, and its products with what is missing [K +
    1, D]."""

    reads: Any
    misses: Any


def refit(
    pruned: Any,
    dense: Any,
    batches: Sequence[Batch],
    *,
    how: Tune,
    ridge: float,
    context: Context,
    kept: Sequence[int] | None = None,
) -> None:
    """Fit the pruned model's joining maps, in place; its layers were those in the places `kept` of the dense model."""
    import torch

    with torch.no_grad():
        passages = [start(dense, batch, context.head) for batch in batches]
        sites, models = find_sites(pruned), (encoder_layers(pruned), encoder_layers(dense))
        kept = range(len(models[1])) if kept is None else kept
        stood_for = places_stood_for(kept, len(models[1]))
        for index, (ours, *places) in enumerate(zip(models[0], kept, stood_for, strict=True)):
            wanted = [pass_dense(models[1], passage, *places) for passage in passages]
            last = index == len(models[0]) - 1
            for place in (0, 1):
                site = sites[2 * index + place]
                targets = [pair[place] for pair in wanted]
                _fit(site, collect(site, ours, passages, targets, head=context.head, last=last), how=how, ridge=ridge)
            for passage in passages:
                passage.pruned = ours(passage.pruned, passage.mask)[-1]
            context.progress.step("tune", index + 1, len(models[0]))


def places_stood_for(kept: Sequence[int], count: int) -> list[int]:
    """For each kept one of so many layers the last of those dropped right behind it, or itself."""
    return [after - 1 for after in (*kept[1:], count)]


def start(dense: Any, batch: Batch, head: Head) -> Passage:
    """What the first layer is given; embeddings are the same in both models."""
    hidden, mask = first_inputs(dense, batch, head)
    return Passage(batch, mask, hidden, hidden)


def pass_dense(layers: Any, passage: Passage, own: int, stood_for: int) -> tuple[Any, Any]:
    """Take a batch through the dense model up to the layer that one stands for; what the layer's two LayerNorms are to
    be given, [B, T, D]: what its own attention gave, and what the other's neurons did."""
    sums = {}
    for place in range(passage.passed, stood_for + 1):
        layer = layers[place]
        with noted(layer.sa_layer_norm, layer.output_layer_norm) as found:
            passage.dense = layer(passage.dense, passage.mask)[-1]
        sums[place] = [inputs[0] for inputs in found]
    passage.passed = stood_for + 1
    return sums[own][0], _scaled_like(sums[own][1], sums[stood_for][1])


def _scaled_like(own: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """The other with the mean and deviation of each token's own; to a LayerNorm that is the same, and easier to fit."""
    if own is other:
        return own
    means, scales = own.mean(dim=-1, keepdim=True), own.std(dim=-1, keepdim=True)
    away = other - other.mean(dim=-1, keepdim=True)
    return means + away * scales / other.std(dim=-1, keepdim=True).clamp_min(1e-12)


def collect(
    site: Site, layer: Any, passages: Sequence[Passage], targets: Sequence[Any], *, head: Head, last: bool
) -> Sums:
    """The sums of a site over all tokens that count; `targets` are what its LayerNorm is given in the dense model."""
    import torch

    columns, rows = site.joins.in_features + 1, site.joins.out_features
    reads = torch.zeros(columns, columns, dtype=torch.float64)
    misses = torch.zeros(columns, rows, dtype=torch.float64)
    for passage, target in zip(passages, targets, strict=True):
        with noted(site.joins, site.norm) as found:
            layer(passage.pruned, passage.mask)
        counts = counting(passage.batch, head, last=last)
        (x,), (total,) = (inputs[:1] for inputs in found)
        x, missing = x[counts], (target - total)[counts]
        x = torch.cat([x, torch.ones(len(x), 1)], dim=1)
        reads += x.T @ x
        misses += x.T @ missing
    return Sums(reads, misses)


def _fit(site: Site, sums: Sums, *, how: Tune, ridge: float) -> None:
    change = _changed_masks(site, sums, ridge) if how == "masks" else changed_map(sums, ridge)
    if not change.isfinite().all():
        raise StageError("prune: least squares gave weights that are not finite; raise 'ridge', or set 'tune: none'")
    shift(site, change)


def shift(site: Site, change: Any) -> None:
    """Add to a joining map and its bias, in place."""
    site.joins.weight += change[:-1].T.float()
    site.joins.bias += change[-1].float()


def changed_map(sums: Sums, ridge: float) -> torch.Tensor:
    """What to add to the joining map and its bias, [K + 1, D]."""
    import torch

    level = sums.reads.diagonal()[:-1].mean()
    pull = torch.full((len(sums.reads),), float(ridge * level), dtype=torch.float64).clamp_min(1e-12)
    pull[-1] = BIAS_RIDGE * float(sums.reads[-1, -1])
    return torch.linalg.solve(sums.reads + torch.diag(pull), sums.misses)


def _changed_masks(site: Site, sums: Sums, ridge: float) -> torch.Tensor:
    """What rescaling heads or neurons by 0 to `LARGEST_MASK` adds to the joining map, [K + 1, D]; the bias stays."""
    import torch

    weight = site.joins.weight.double()
    shape = (site.count, site.width)
    products = (sums.reads[:-1, :-1] * (weight.T @ weight)).reshape(*shape, *shape).sum(dim=(1, 3))
    wanted = (sums.misses[:-1].T * weight).sum(dim=0).reshape(shape).sum(dim=1)
    level = float(products.diagonal().mean())
    pull = max(ridge * level, 1e-12) * torch.eye(site.count, dtype=torch.float64)
    masks = 1 + torch.linalg.solve(products + pull, wanted)
    change = (masks.clamp(0.0, LARGEST_MASK) - 1).repeat_interleave(site.width)
    return torch.cat([(weight * change).T, torch.zeros(1, len(weight), dtype=torch.float64)])
