"""Let what is left of a pruned model stand in for what was taken away, layer by layer, by least squares.

Kwon et al. (2022, arXiv 2204.09656) rescale each head and neuron that is left, so that every layer's output comes
nearest to the dense model's; such masks are folded into the columns of the output projection. Refitting the projection
itself, bias included, costs no more data and leaves less of an error (`tune: weights`).

With x what the projection reads, a one appended, and e what its layer's sum lacks, the change Δ that makes
|x Δ - e|² least, summed over tokens, solves (XᵀX + R) Δ = XᵀE. The ridge R pulls towards the weights as they are,
never towards zero.

Sites are fitted in the order in which a text passes them, each to the dense model's sum before its LayerNorm, so
errors of the layers before are made up for as well. Where layers were dropped behind one, its neurons are fitted to
the sum of the last of them, whose LayerNorm the layer has taken over (`pruning.layers`). Only tokens that answers
depend on count in the last layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from optimize.checkpoint import encoder_layers, pass_layer
from optimize.errors import StageError
from optimize.interfaces import Context, Head
from optimize.pruning.activations import first_inputs, recorded_inputs, tokens_that_count
from optimize.pruning.sites import Site, find_sites
from optimize.training.batches import Batch

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module, ModuleList
    from transformers import PreTrainedModel

Tune = Literal["weights", "masks"]
LARGEST_MASK = 10.0
"""Larger masks fit the calibration texts alone."""
BIAS_RIDGE = 1e-6
"""The bias need not be held back: it is one number that all tokens have a say in."""
LEAST_RIDGE = 1e-12
"""What keeps the equations solvable where a column is zero for all tokens."""


@dataclass
class LayerInputs:
    """One batch between two layers of both models: what the next layers read, [B, T, D], and the attention mask.

    `passed` layers of the dense model are behind it.
    """

    batch: Batch
    mask: Tensor
    pruned: Tensor
    dense: Tensor
    passed: int = 0


@dataclass(frozen=True)
class Moments:
    """XᵀX [K + 1, K + 1] of what a site reads, a one appended, and XᵀE [K + 1, D] with what its sum lacks."""

    XX: Tensor
    XE: Tensor


def refit(
    pruned: PreTrainedModel,
    dense: PreTrainedModel,
    batches: Sequence[Batch],
    *,
    how: Tune,
    ridge: float,
    context: Context,
    kept: Sequence[int] | None = None,
) -> None:
    """Fit the pruned model's output projections, in place; its layers were those in `kept` places of the dense one."""
    import torch

    ours, theirs = encoder_layers(pruned), encoder_layers(dense)
    sites = find_sites(pruned)
    kept = range(len(theirs)) if kept is None else kept
    stood_for = places_stood_for(kept, len(theirs))
    with torch.no_grad():
        inputs = [start(dense, batch, context.head) for batch in batches]
        for index, layer in enumerate(ours):
            targets = [pass_dense(theirs, each, kept[index], stood_for[index]) for each in inputs]
            last = index == len(ours) - 1
            # Neurons read what the heads, fitted by then, give them.
            for place in (0, 1):
                site, wanted = sites[2 * index + place], [pair[place] for pair in targets]
                moments = collect(site, layer, inputs, wanted, head=context.head, last=last)
                _fit(site, moments, how=how, ridge=ridge)
            for each in inputs:
                each.pruned = pass_layer(layer, each.pruned, each.mask)
            context.progress.step("tune", index + 1, len(ours))


def places_stood_for(kept: Sequence[int], count: int) -> list[int]:
    """For each kept one of so many layers the last of those dropped right behind it, or itself."""
    return [after - 1 for after in (*kept[1:], count)]


def start(dense: PreTrainedModel, batch: Batch, head: Head) -> LayerInputs:
    """What the first layer is given; embeddings are the same in both models."""
    hidden, mask = first_inputs(dense, batch, head)
    return LayerInputs(batch, mask, hidden, hidden)


def pass_dense(layers: ModuleList, inputs: LayerInputs, own: int, stood_for: int) -> tuple[Tensor, Tensor]:
    """Take a batch through the dense model up to the layer that one stands for.

    What the layer's two LayerNorms are to be given, [B, T, D]: what its own attention gave, and what the other's
    neurons did.
    """
    sums: dict[int, tuple[Tensor, Tensor]] = {}
    for place in range(inputs.passed, stood_for + 1):
        layer = layers[place]
        with recorded_inputs(layer.sa_layer_norm, layer.output_layer_norm) as found:
            inputs.dense = pass_layer(layer, inputs.dense, inputs.mask)
        (attention,), (ffn,) = found
        sums[place] = attention, ffn
    inputs.passed = stood_for + 1
    return sums[own][0], _scaled_like(sums[own][1], sums[stood_for][1])


def _scaled_like(own: Tensor, other: Tensor) -> Tensor:
    """The other with the mean and deviation of each token's own; to a LayerNorm that is the same, and easier to fit."""
    if own is other:
        return own
    means, scales = own.mean(dim=-1, keepdim=True), own.std(dim=-1, keepdim=True)
    away = other - other.mean(dim=-1, keepdim=True)
    return means + away * scales / other.std(dim=-1, keepdim=True).clamp_min(1e-12)


def collect(
    site: Site, layer: Module, inputs: Sequence[LayerInputs], targets: Sequence[Tensor], *, head: Head, last: bool
) -> Moments:
    """The moments of a site over all tokens that count; `targets` are what the dense model gives its LayerNorm."""
    import torch

    K, D = site.projection.in_features, site.projection.out_features
    # FP32 sums over 100,000 tokens would lose what the ridge is to decide by.
    XX = torch.zeros(K + 1, K + 1, dtype=torch.float64)
    XE = torch.zeros(K + 1, D, dtype=torch.float64)
    for each, target in zip(inputs, targets, strict=True):
        with recorded_inputs(site.projection, site.norm) as found:
            layer(each.pruned, each.mask)
        (x, *_), (total, *_) = found
        counts = tokens_that_count(each.batch, head, last=last)
        x, e = x[counts], (target - total)[counts]
        x = torch.cat([x, torch.ones(len(x), 1)], dim=1)
        XX += x.T @ x
        XE += x.T @ e
    return Moments(XX, XE)


def _fit(site: Site, moments: Moments, *, how: Tune, ridge: float) -> None:
    change = _changed_masks(site, moments, ridge) if how == "masks" else changed_projection(moments, ridge)
    if not change.isfinite().all():
        raise StageError("prune: least squares gave weights that are not finite; raise 'ridge', or set 'tune: none'")
    add_to(site, change)


def add_to(site: Site, change: Tensor) -> None:
    """Add [K + 1, D] to a projection and its bias, in place."""
    site.projection.weight += change[:-1].T.float()
    site.projection.bias += change[-1].float()


def changed_projection(moments: Moments, ridge: float) -> Tensor:
    """What to add to the output projection and its bias, [K + 1, D]: (XᵀX + R)⁻¹ XᵀE."""
    import torch

    XX = moments.XX
    # R is relative to the mean square of an input, so that it means the same in each layer.
    level = XX.diagonal()[:-1].mean()
    R = torch.full((len(XX),), float(ridge * level), dtype=torch.float64).clamp_min(LEAST_RIDGE)
    R[-1] = BIAS_RIDGE * float(XX[-1, -1])
    return torch.linalg.solve(XX + torch.diag(R), moments.XE)


def _changed_masks(site: Site, moments: Moments, ridge: float) -> Tensor:
    """What rescaling heads or neurons by 0 to `LARGEST_MASK` adds to the projection, [K + 1, D]; the bias stays."""
    import torch

    W = site.projection.weight.double()
    shape = (site.count, site.width)
    # With head or neuron i giving y_i = W_i x_i, the masks' own least squares have the products y_i · y_j on one side
    # and y_i · e on the other. Both follow from the moments, without another pass over the texts.
    yy = (moments.XX[:-1, :-1] * (W.T @ W)).reshape(*shape, *shape).sum(dim=(1, 3))
    ye = (moments.XE[:-1].T * W).sum(dim=0).reshape(shape).sum(dim=1)
    level = float(yy.diagonal().mean())
    R = max(ridge * level, LEAST_RIDGE) * torch.eye(site.count, dtype=torch.float64)
    masks = 1 + torch.linalg.solve(yy + R, ye)
    change = (masks.clamp(0.0, LARGEST_MASK) - 1).repeat_interleave(site.width)
    return torch.cat([(W * change).T, torch.zeros(1, len(W), dtype=torch.float64)])
