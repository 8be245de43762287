"""How much a model's answers depend on its heads and neurons: one backward pass over calibration texts.

The loss is the divergence of a pruned model's answers from the model's own. At the model itself its gradient is zero,
and its second derivative is the Fisher information of the answers, E[g gᵀ], where g is the gradient of v · answer for
random v whose covariance is the divergence's own second derivative. That takes no labels, and is the same for every
head: for classes (and for the tokens that a span begins or ends at) v has the covariance diag(p) - p pᵀ, as the score
of a label drawn from the model's own probabilities p has, for sets p (1 - p), for a number 1 (squared error), and for
vectors that of 1 - cosine, (I - u uᵀ) / |f|².

For each site the pass gathers the gradient of every text with respect to masks of ones on its heads or neurons, which
is what Kwon et al. (2022, arXiv 2204.09656) search with, and the second moments of what the output projection
reads and of the gradients of what it writes (Martens and Grosse, 2015, arXiv 1503.05671), for searches
that count on compensation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optimize.errors import StageError
from optimize.interfaces import Context
from optimize.pruning.sites import Site
from optimize.training.batches import Batch, answer
from optimize.training.labels import Answers

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module
    from transformers import PreTrainedModel


@dataclass
class Evidence:
    """What was gathered at one site.

    `masks` are the masks' gradients by text, [texts, count]. `inputs` [K, K] is the second moment of what the output
    projection reads, each token weighted by its gradient's squared length, and `outputs` [D, D] that of the gradients;
    both are sums over tokens, and `weight` is the sum of the weights.
    """

    masks: Tensor
    inputs: Tensor
    outputs: Tensor
    weight: float = 0.0


def gather(
    model: PreTrainedModel, sites: Sequence[Site], batches: Sequence[Batch], answers: Answers, context: Context
) -> list[Evidence]:
    """The evidence of all sites; raises StageError where they are not finite, or all zero."""
    import torch

    found = [_nothing(site) for site in sites]
    masks: list[list[Tensor]] = [[] for _ in sites]
    model.requires_grad_(False)
    for done, batch in enumerate(batches):
        with torch.enable_grad(), _traced(sites) as trace:
            rows = answer(model, batch, context.head).rows
            v = directions(rows.detach(), answers)
            (v * rows).sum().backward()
        for index, (reads, writes) in enumerate(trace):
            masks[index].append(_mask_gradients(sites[index], batch, reads, writes.grad))
            _add_moments(found[index], reads[batch.real], writes.grad[batch.real])
        context.progress.step("measure importance", done + 1, len(batches))
    for evidence, parts in zip(found, masks, strict=True):
        evidence.masks = torch.cat(parts)
    if not all(evidence.masks.isfinite().all() for evidence in found):
        raise StageError("prune: an answer or its gradient is not finite; give a checkpoint whose answers are finite")
    if not any(evidence.weight for evidence in found):
        raise StageError("prune: no answer depends on any head or neuron; give other calibration texts")
    return found


def directions(rows: Tensor, answers: Answers) -> Tensor:
    """Random v for each row of an answer, with the covariance that the module's docstring names."""
    import torch

    # Rademacher signs have covariance 1, and of all such the least variance in what is estimated.
    signs = torch.randint(0, 2, rows.shape).to(rows.dtype) * 2 - 1
    if answers == "values":
        return signs
    if answers == "sets":
        p = rows.sigmoid()
        return signs * (p * (1 - p)).sqrt()
    if answers == "vectors":
        # (I - u uᵀ) is its own square, so what projects the signs gives the covariance.
        lengths = rows.norm(dim=-1, keepdim=True).clamp_min(1e-12)
        u = rows / lengths
        return (signs - u * (u * signs).sum(dim=-1, keepdim=True)) / lengths
    # s √p has the covariance diag(p); taking its sum times p away leaves diag(p) - p pᵀ.
    p = rows.softmax(dim=-1)
    drawn = signs * p.sqrt()
    return drawn - p * drawn.sum(dim=-1, keepdim=True)


@contextmanager
def _traced(sites: Sequence[Site]) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Note what each site's projection reads and writes while the model answers; what it writes keeps its gradient."""
    trace: list[tuple[Tensor, Tensor]] = []

    def note(_: Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        # Parameters need no gradients, so the first projection's output does not have one by itself.
        leaf = output if output.requires_grad else output.requires_grad_()
        leaf.retain_grad()
        trace.append((inputs[0].detach(), leaf))
        return leaf

    hooks = [site.projection.register_forward_hook(note) for site in sites]
    try:
        yield trace
    finally:
        for hook in hooks:
            hook.remove()


def _nothing(site: Site) -> Evidence:
    import torch

    K, D = site.projection.in_features, site.projection.out_features
    return Evidence(torch.zeros(0, site.count), torch.zeros(K, K), torch.zeros(D, D))


def _mask_gradients(site: Site, batch: Batch, reads: Tensor, gradients: Tensor) -> Tensor:
    """The gradients of a batch's texts by masks of ones on heads or neurons, [texts, count].

    `reads` [B, T, K] is what the projection reads, and `gradients` [B, T, D] those of what it writes.
    """
    # The chain rule: a mask m multiplies x, so d/dm = x · d/dx, and d/dx = Wᵀ d/dy.
    by_column = (reads * (gradients @ site.projection.weight) * batch.real.unsqueeze(-1)).sum(dim=1)
    by_member = by_column.unflatten(-1, (site.count, site.width)).sum(dim=-1)
    # The choices of one feature are one text.
    return by_member.reshape(len(batch.inputs["input_ids"]), -1, site.count).sum(dim=1)


def _add_moments(evidence: Evidence, reads: Tensor, gradients: Tensor) -> None:
    """Add the tokens [N, K] and [N, D] of a batch to a site's second moments."""
    weights = gradients.square().sum(dim=-1, keepdim=True)
    evidence.inputs += (reads * weights).T @ reads
    evidence.outputs += gradients.T @ gradients
    evidence.weight += float(weights.sum())
