"""Texts on their way through a model, one layer after the other: what a map is given, and which tokens of it count."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from optimize.checkpoint import encoder_layers
from optimize.interfaces import Head
from optimize.training.batches import Batch, answer

if TYPE_CHECKING:
    import torch


@contextmanager
def noted(*modules: Any) -> Iterator[list[Any]]:
    """What modules are given while they are called, in the order of the calls."""
    found: list[Any] = []
    hooks = [module.register_forward_pre_hook(lambda _, inputs: found.append(inputs)) for module in modules]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


class _Reached(Exception):  # noqa: N818 - a way out of a call, not an error
    """The call came to the module that it was made for."""


def read_by(module: Any, call: Callable[[], object]) -> Any:
    """The tensor that a module is given by a call, which ends there: what comes after the module is not computed."""
    found: list[Any] = []

    def stop(_: Any, inputs: tuple[Any, ...]) -> None:
        found.append(inputs[0])
        raise _Reached

    hook = module.register_forward_pre_hook(stop)
    try:
        with suppress(_Reached):
            call()
    finally:
        hook.remove()
    return found[0]


def first_inputs(model: Any, batch: Batch, head: Head) -> tuple[Any, Any]:
    """What the first layer is given: hidden states [B, T, D] and the attention mask."""
    with noted(encoder_layers(model)[0]) as found:
        answer(model, batch, head)
    hidden, mask = found[0][:2]
    return hidden, mask


def counting(batch: Batch, head: Head, *, last: bool) -> torch.Tensor:
    """Which tokens [B, T] count: in the last layer those that the head reads."""
    import torch

    if not last:
        return batch.real
    if head.reads == "first token":
        first = torch.zeros_like(batch.real)
        first[:, 0] = True
        return first
    return batch.decides
