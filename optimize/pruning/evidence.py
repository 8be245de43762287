"""What a model's answers say about its heads and neurons: one backward pass over calibration texts.

The loss is the divergence of a pruned model's answers from the model's own. At the model itself its gradient is zero,
and its second derivative is the Fisher information of the answers, E[g gᵀ], where g is the gradient of v · answer for
random v whose covariance is the divergence's own second derivative. That takes no labels, and is the same for every
head: for classes (and for the tokens that a span begins or ends at) v has the covariance diag(p) - p pᵀ, as the score
of a label drawn from the model's own probabilities p has, for sets p (1 - p), for a number 1 (squared error), and for
vectors that of 1 - cosine, (I - u uᵀ) / |f|².

For each site the pass gathers the gradient of every text with respect to masks of ones on its heads or neurons, which
is what Kwon et al. (2022, arXiv 2204.09656) search with, and the second moments of what the joining map reads and of
the gradients of what it writes (Martens and Grosse, 2015, arXiv 1503.05671), for searches that count on compensation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optimize.errors import StageError
from optimize.interfaces import Context
from optimize.pruning.sites import Site
from optimize.training.batches import Batch, answer
from optimize.training.labels import Answers

if TYPE_CHECKING:
    import torch


@dataclass
class Evidence:
    """What was gathered at one site.

    `masks` are the masks' gradients by text, [texts, count]. `inputs` [K, K] is the second moment of what the joining
    map reads, each token weighted by its gradient's squared length, and `outputs` [D, D] that of the gradients; both
    are sums over tokens, and `weight` is the sum of the weights.
    """

    masks: Any
    inputs: Any
    outputs: Any
    weight: float = 0.0


def gather(
    model: Any, sites: Sequence[Site], batches: Sequence[Batch], answers: Answers, context: Context
) -> list[Evidence]:
    """The evidence of all sites; raises StageError where they are not finite, or all zero."""
    import torch

    found = [_nothing(site) for site in sites]
    model.requires_grad_(False)
    for done, batch in enumerate(batches):
        with torch.enable_grad(), _traced(sites) as trace:
            rows = answer(model, batch, context.head).rows
            (directions(rows.detach(), answers) * rows).sum().backward()
        for site, evidence, (reads, writes) in zip(sites, found, trace, strict=True):
            _add(evidence, site, batch, reads, writes.grad)
        context.progress.step("measure importance", done + 1, len(batches))
    for evidence in found:
        evidence.masks = torch.cat(evidence.masks)
    if not all(evidence.masks.isfinite().all() for evidence in found):
        raise StageError("prune: an answer or its gradient is not finite; give a checkpoint whose answers are finite")
    if not any(evidence.weight for evidence in found):
        raise StageError("prune: no answer depends on any head or neuron; give other calibration texts")
    return found


def directions(rows: torch.Tensor, answers: Answers) -> torch.Tensor:
    """Random v for each row of an answer, with the covariance that the module's docstring names."""
    import torch

    signs = torch.randint(0, 2, rows.shape).to(rows.dtype) * 2 - 1
    if answers == "values":
        return signs
    if answers == "sets":
        chances = rows.sigmoid()
        return signs * (chances * (1 - chances)).sqrt()
    if answers == "vectors":
        lengths = rows.norm(dim=-1, keepdim=True).clamp_min(1e-12)
        unit = rows / lengths
        return (signs - unit * (unit * signs).sum(dim=-1, keepdim=True)) / lengths
    chances = rows.softmax(dim=-1)
    drawn = signs * chances.sqrt()
    return drawn - chances * drawn.sum(dim=-1, keepdim=True)


@contextmanager
def _traced(sites: Sequence[Site]) -> Iterator[list[tuple[Any, Any]]]:
    """Note what each site's map reads and writes while the model answers; what it writes keeps its gradient."""
    trace: list[tuple[Any, Any]] = []

    def note(_: Any, inputs: Any, output: Any) -> Any:
        leaf = output if output.requires_grad else output.requires_grad_()
        leaf.retain_grad()
        trace.append((inputs[0].detach(), leaf))
        return leaf

    hooks = [site.joins.register_forward_hook(note) for site in sites]
    try:
        yield trace
    finally:
        for hook in hooks:
            hook.remove()


def _nothing(site: Site) -> Evidence:
    import torch

    columns, rows = site.joins.in_features, site.joins.out_features
    return Evidence([], torch.zeros(columns, columns), torch.zeros(rows, rows))


def _add(evidence: Evidence, site: Site, batch: Batch, reads: Any, slopes: Any) -> None:
    """Add one batch: `reads` [B, T, K] and `slopes` [B, T, D], the gradients of what the map writes."""
    parts = (reads * (slopes @ site.joins.weight) * batch.real.unsqueeze(-1)).sum(dim=1)
    by_text = parts.unflatten(-1, (site.count, site.width)).sum(dim=-1)
    evidence.masks.append(by_text.reshape(len(batch.inputs["input_ids"]), -1, site.count).sum(dim=1))
    reads, slopes = reads[batch.real], slopes[batch.real]
    weights = slopes.square().sum(dim=-1, keepdim=True)
    evidence.inputs += (reads * weights).T @ reads
    evidence.outputs += slopes.T @ slopes
    evidence.weight += float(weights.sum())
