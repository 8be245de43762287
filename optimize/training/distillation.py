"""Distillation: how far a student's answers are from its teacher's on the same batch (Hinton et al., 2015).

What is compared is what the head reads. Masked-LM logits are computed at the masked tokens alone:
those of all tokens would be gigabytes. No labels are needed; where there are some, they may count too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optimize.checkpoint import layers_stood_for
from optimize.errors import StageError
from optimize.interfaces import Head
from optimize.training.batches import Answer, Batch, answer
from optimize.training.labels import Answers, label_loss

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Pair:
    """A student, the teacher that it is to answer like, and how their answers are compared."""

    student: PreTrainedModel
    teacher: PreTrainedModel
    head: Head
    answers: Answers
    temperature: float


@dataclass(frozen=True)
class Weights:
    """The weights of the parts of the loss; a part of weight 0 is not computed.

    `soft` is the teacher's softened answers, `labels` the right ones; of the hidden states, `hidden` is the squared
    error and `cosine` the direction.
    """

    soft: float = 1.0
    labels: float = 0.0
    hidden: float = 0.0
    cosine: float = 0.0


def require_alike(pair: Pair, *, stage: str) -> None:
    """Refuse a student with hidden states that its teacher has none to match with, or that end at another layer."""
    ours, theirs = pair.student.config, pair.teacher.config
    mine, known = layers_stood_for(ours), layers_stood_for(theirs)
    if ours.dim != theirs.dim or mine[-1] != known[-1] or not set(mine) <= set(known):
        raise StageError(
            f"{stage}: the model has {len(mine)} layers of width {ours.dim} and its reference {len(known)} of "
            f"{theirs.dim}: they cannot be matched; set '{stage}: {{hidden_weight: 0}}'"
        )


def row_losses(student: Tensor, teacher: Tensor, kind: Answers, *, temperature: float) -> Tensor:
    """Per row: KL(teacher || student) in nats for classes, squared error for values, and for vectors
    1 - cosine plus the squared error relative to the teacher's length.

    KL is that of softened answers, times the temperature squared, which keeps the gradient's size.
    """
    import torch
    from torch.nn import functional

    if kind == "values":
        return (student - teacher).square().mean(dim=-1)
    if kind == "vectors":
        error = (student - teacher).square().sum(dim=-1) / teacher.square().sum(dim=-1).clamp_min(1e-12)
        return 1.0 - functional.cosine_similarity(student, teacher, dim=-1) + error
    if kind == "sets":
        # Each class is a choice of two: a sigmoid is the softmax of (x, 0).
        student = torch.stack([student, torch.zeros_like(student)], dim=-1)
        teacher = torch.stack([teacher, torch.zeros_like(teacher)], dim=-1)
    T = temperature
    log_q = functional.log_softmax(student / T, dim=-1)
    log_p = functional.log_softmax(teacher / T, dim=-1)
    losses = functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=-1)
    # A set's row has a divergence for each class, which add up: the choices are independent.
    return T**2 * losses.reshape(len(losses), -1).sum(dim=-1)


def hidden_loss(student: Answer, teacher: Answer, batch: Batch, head: Head) -> Tensor:
    """Squared error of the layers' outputs relative to the teacher's, over the tokens that answers depend on."""
    import torch

    losses: list[Tensor] = []
    for ours, theirs in _hidden_pairs(student, teacher, batch, head):
        # Layers differ in scale by far; relative errors let each count alike.
        losses.append((ours - theirs).square().mean() / theirs.square().mean())
    return torch.stack(losses).mean()


def cosine_loss(student: Answer, teacher: Answer, batch: Batch, head: Head) -> Tensor:
    """1 - cosine of the layers' outputs and the teacher's, token by token (Sanh et al., 2019), over the same tokens."""
    import torch
    from torch.nn import functional

    cosines: list[Tensor] = []
    for ours, theirs in _hidden_pairs(student, teacher, batch, head):
        cosines.append(functional.cosine_similarity(ours, theirs, dim=-1).mean())
    return 1.0 - torch.stack(cosines).mean()


def _hidden_pairs(student: Answer, teacher: Answer, batch: Batch, head: Head) -> Iterator[tuple[Tensor, Tensor]]:
    """The vectors [N, D] of both models after each layer that the student's stand for, of tokens that answers need.

    Of the last layer, those are the ones that the head reads.
    """
    for layer, ours in student.hidden.items():
        last = head.reads == "first token" and layer == max(teacher.hidden)
        count = (slice(None), 0) if last else batch.real
        yield ours[count], teacher.hidden[layer][count]


def batch_loss(pair: Pair, batch: Batch, weights: Weights) -> Tensor:
    """What the student learns from: the mean loss of a batch's rows against the teacher, labels and hidden states."""
    import torch

    with torch.no_grad():
        wanted = answer(pair.teacher, batch, pair.head)
    given = answer(pair.student, batch, pair.head)
    loss = torch.zeros((), device=given.rows.device)
    if weights.soft:
        losses = row_losses(given.rows, wanted.rows, pair.answers, temperature=pair.temperature)
        loss = loss + weights.soft * losses.sum() / max(1, len(losses))
    if weights.labels and batch.labels is not None:
        loss = loss + weights.labels * label_loss(given.rows, batch.labels, pair.answers)
    for weight, measure in ((weights.hidden, hidden_loss), (weights.cosine, cosine_loss)):
        if weight:
            loss = loss + weight * measure(given, wanted, batch, pair.head)
    return loss


def mean_loss(pair: Pair, batches: Sequence[Batch]) -> float:
    """The mean loss of all rows of all batches."""
    import torch

    total, count = 0.0, 0
    with torch.no_grad():
        for batch in batches:
            given = answer(pair.student, batch, pair.head).rows
            wanted = answer(pair.teacher, batch, pair.head).rows
            losses = row_losses(given, wanted, pair.answers, temperature=pair.temperature)
            # Classes' rows may be thousands: FP32 sums would lose digits that evaluations are compared by.
            total += float(losses.sum(dtype=torch.float64))
            count += len(losses)
    return total / max(1, count)
