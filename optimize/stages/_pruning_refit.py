"""Let what is left of a pruned model stand in for what was taken away, layer by layer, by least squares.

Kwon et al. (2022, arXiv 2204.09656) rescale each head and neuron that is left, so that every layer's output comes
nearest to the dense model's; such masks are folded into the columns of the joining map. Refitting the map itself,
bias included, costs no more data and leaves less of an error (`tune: weights`).

Sites are fitted in the order in which a text passes them, each to the dense model's sum before its LayerNorm, so
errors of the layers before are made up for as well. The ridge pulls towards the weights as they are, never towards
zero. Only tokens that answers depend on count in the last layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from optimize.checkpoint import encoder_layers
from optimize.errors import StageError
from optimize.interfaces import Context, Head
from optimize.stages._distillation import Batch
from optimize.stages._passage import counting, first_inputs, noted
from optimize.stages._pruning_sites import Site, find_sites

if TYPE_CHECKING:
    import torch

Tune = Literal["weights", "masks"]
LARGEST_MASK = 10.0
BIAS_RIDGE = 1e-6


@dataclass
class Passage:
    """One batch on its way through both models: what the next layer reads, and its attention mask."""

    batch: Batch
    mask: Any
    pruned: Any
    dense: Any


@dataclass(frozen=True)
class Sums:
    """Second moments [K + 1, K + 1] of what a site reads, a one appended, and its products with what is missing [K +
    1, D]."""

    reads: Any
    misses: Any


def refit(pruned: Any, dense: Any, batches: Sequence[Batch], *, how: Tune, ridge: float, context: Context) -> None:
    """Fit the pruned model's joining maps, in place."""
    import torch

    with torch.no_grad():
        passages = [start(dense, batch, context.head) for batch in batches]
        sites, models = find_sites(pruned), (encoder_layers(pruned), encoder_layers(dense))
        for index, (ours, theirs) in enumerate(zip(*models, strict=True)):
            wanted = [sums_before_norms(theirs, passage.dense, passage.mask) for passage in passages]
            last = index == len(models[0]) - 1
            for place in (0, 1):
                site = sites[2 * index + place]
                targets = [pair[place] for pair in wanted]
                _fit(site, collect(site, ours, passages, targets, head=context.head, last=last), how=how, ridge=ridge)
            for passage in passages:
                passage.pruned = ours(passage.pruned, passage.mask)[-1]
                passage.dense = theirs(passage.dense, passage.mask)[-1]
            context.progress.step("tune", index + 1, len(models[0]))


def start(dense: Any, batch: Batch, head: Head) -> Passage:
    """What the first layer is given; embeddings are the same in both models."""
    hidden, mask = first_inputs(dense, batch, head)
    return Passage(batch, mask, hidden, hidden)


def sums_before_norms(layer: Any, hidden: Any, mask: Any) -> list[Any]:
    """What a layer's two LayerNorms are given, [B, T, D] each."""
    with noted(layer.sa_layer_norm, layer.output_layer_norm) as found:
        layer(hidden, mask)
    return [inputs[0] for inputs in found]


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
