"""What modules read while a model answers: the inputs of layers and of linear maps, and which tokens of them count."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from optimize.checkpoint import encoder_layers
from optimize.interfaces import Head
from optimize.training.batches import Batch, answer

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module
    from transformers import PreTrainedModel


@contextmanager
def recorded_inputs(*modules: Module) -> Iterator[list[tuple[Tensor, ...]]]:
    """The positional arguments of modules while they are called, in the order of the calls."""
    found: list[tuple[Tensor, ...]] = []
    hooks = [module.register_forward_pre_hook(lambda _, inputs: found.append(inputs)) for module in modules]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


class _Reached(Exception):  # noqa: N818 - a way out of a call, not an error
    """The call came to the module that it was made for."""


def input_of(module: Module, call: Callable[[], object]) -> Tensor:
    """The tensor that a module is given by a call, which ends there: what comes after the module is not computed."""
    found: list[Tensor] = []

    def stop(_: Module, inputs: tuple[Tensor, ...]) -> None:
        found.append(inputs[0])
        raise _Reached

    hook = module.register_forward_pre_hook(stop)
    try:
        with suppress(_Reached):
            call()
    finally:
        hook.remove()
    return found[0]


def first_inputs(model: PreTrainedModel, batch: Batch, head: Head) -> tuple[Tensor, Tensor]:
    """What the first layer is given: hidden states [B, T, D] and the attention mask."""
    with recorded_inputs(encoder_layers(model)[0]) as found:
        answer(model, batch, head)
    hidden, mask = found[0][:2]
    return hidden, mask


def tokens_that_count(batch: Batch, head: Head, *, last: bool) -> Tensor:
    """Which tokens [B, T] the answers depend on: in the last layer those that the head reads."""
    import torch

    if not last:
        return batch.real
    if head.reads == "first token":
        first = torch.zeros_like(batch.real)
        first[:, 0] = True
        return first
    return batch.decides
