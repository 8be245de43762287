"""Fake quantization: a float model that computes with what INT8 would leave of its weights and inputs.

Weights are rounded per output channel (s8, symmetric), what linear layers read per tensor (u8,
asymmetric), and looked-up rows of tables one by one: the grids of `quantize_static`, whose observers
give the ranges too. Gradients go straight through the rounding (Bengio et al., 2013; Jacob et al.,
2018). Padding enters no range, since it reaches no answer.

All of it lives in the modules' `forward`: parameters keep their names, ties and identity, and
taking it off leaves nothing behind.
"""

from __future__ import annotations

import functools
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from optimize.quantization.observers import Observer, make_observer
from optimize.quantization.ranges import Method
from optimize.request import Reads

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

LEAST_OUTPUTS = 32
"""Layers with fewer outputs (classifiers) stay in float: they cost nothing, and answers hang on them."""
PERCENTILE = 99.99
TINY = 2.0**-126
ACTIVATION_LIMIT = 255
TABLE_LIMIT = 127


@dataclass
class Ranges:
    """Ranges by group of layers, and what the next forward pass does about them.

    While `watching`, nothing is rounded and observers take in what layers read; else it is rounded within
    `bounds`. `real` [B, T] says which tokens of the next batch are no padding.
    """

    observe: Callable[[], Observer]
    bounds: dict[str, tuple[float, float]] = field(default_factory=dict)
    observers: dict[str, Observer] = field(default_factory=dict)
    watching: bool = False
    real: torch.Tensor | None = None

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Take all ranges anew from the batches that are run meanwhile."""
        self.observers, self.watching = defaultdict(self.observe), True
        try:
            yield
        finally:
            self.watching = False
        self.bounds = {}
        for group, observer in self.observers.items():
            found = observer.range()
            self.bounds[group] = (found.low, found.high)


@dataclass(frozen=True)
class Site:
    """A linear layer, and the range that it shares with others which read the same tensor.

    The one that `leads` its group takes the range. Where `first_token` is set, no answer depends on
    what the layer makes of other tokens, and the exported graph does not even compute it.
    """

    module: torch.nn.Linear
    group: str
    leads: bool
    first_token: bool


@contextmanager
def fake_quantized(model: PreTrainedModel, *, reads: Reads, limit: int, method: Method) -> Iterator[Ranges]:
    """Let the model compute as INT8 would, once `watch` has found ranges by `method`.

    `limit` is the largest magnitude of a weight that is multiplied with.
    """
    ranges = Ranges(functools.partial(make_observer, method, percentile=PERCENTILE, symmetric=False))
    changed: list[torch.nn.Module] = []
    try:
        for site in find_sites(model, reads=reads):
            site.module.forward = functools.partial(_linear, site, ranges, limit)
            changed.append(site.module)
        for table in find_tables(model):
            # A look-up adds nothing up, so only a table that is multiplied with as well has to hold back.
            most = limit if _is_tied(model, table) else TABLE_LIMIT
            table.forward = functools.partial(_look_up, table, ranges, most)
            changed.append(table)
        yield ranges
    finally:
        for module in changed:
            del module.forward  # the instance's own; the class's shows again


def find_sites(model: PreTrainedModel, *, reads: Reads) -> list[Site]:
    """The linear layers that will be quantized, in the order in which they run."""
    import torch

    last = f"transformer.layer.{len(model.base_model.transformer.layer) - 1}."
    sites: list[Site] = []
    groups: set[str] = set()
    for name, module in model.named_modules():
        if not isinstance(module, torch.nn.Linear) or module.out_features < LEAST_OUTPUTS:
            continue
        # Keys and values of the last layer are those of all tokens, which the first token attends to.
        first_token = reads == "first token" and last in name and not name.endswith(("k_lin", "v_lin"))
        group = name if first_token else re.sub(r"[qkv]_lin$", "qkv", name)
        sites.append(Site(module, group, leads=group not in groups, first_token=first_token))
        groups.add(group)
    return sites


def find_tables(model: PreTrainedModel) -> list[torch.nn.Embedding]:
    """The embedding tables."""
    import torch

    return [module for module in model.modules() if isinstance(module, torch.nn.Embedding)]


def round_rows(weight: torch.Tensor, limit: int) -> torch.Tensor:
    """Round each row of [R, D] to multiples of its largest magnitude over `limit`."""
    import torch

    scales = (weight.detach().abs().amax(dim=1) / limit).clamp_min(TINY)
    zeros = torch.zeros(len(weight), dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scales, zeros, 0, -limit, limit)


def round_tensor(x: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """Round to 256 steps from `low` <= 0 to `high` >= 0; 0 stays exact."""
    import torch

    scale = max((high - low) / ACTIVATION_LIMIT, TINY)  # a subnormal scale would be flushed to 0
    return torch.fake_quantize_per_tensor_affine(x, scale, round(-low / scale), 0, ACTIVATION_LIMIT)


def _linear(site: Site, ranges: Ranges, limit: int, x: torch.Tensor) -> torch.Tensor:
    import torch

    if not math.isfinite(x.detach().sum().item()):  # rounding would turn NaN into a number
        raise FloatingPointError(f"what {site.group} reads is not finite")
    weight, bias = site.module.weight, site.module.bias
    if not ranges.watching:
        low, high = ranges.bounds[site.group]
        return torch.nn.functional.linear(round_tensor(x, low, high), round_rows(weight, limit), bias)
    if site.leads:
        for text in _that_count(x.detach(), ranges.real, site):
            ranges.observers[site.group].update(text.numpy())
    return torch.nn.functional.linear(x, weight, bias)


def _that_count(x: torch.Tensor, real: torch.Tensor, site: Site) -> Iterator[torch.Tensor]:
    """Text by text the values that answers depend on, of [B, T, D]; what has no token axis is read whole."""
    if x.dim() < 3:
        yield x
        return
    for values, kept in zip(x, real, strict=True):
        yield values[0] if site.first_token else values[kept]


def _look_up(table: torch.nn.Embedding, ranges: Ranges, limit: int, ids: torch.Tensor) -> torch.Tensor:
    """Rows of the rounded table: rows have scales of their own, so only those looked up are rounded."""
    import torch

    rows = torch.nn.functional.embedding(ids, table.weight, table.padding_idx)
    if ranges.watching:
        return rows
    return round_rows(rows.reshape(-1, rows.shape[-1]), limit).reshape(rows.shape)


def _is_tied(model: PreTrainedModel, table: torch.nn.Embedding) -> bool:
    """Whether the model multiplies with the table as well, to answer in words."""
    projection = model.get_output_embeddings()
    return projection is not None and projection.weight is table.weight
