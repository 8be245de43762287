"""Where attention heads and FFN neurons are joined, how to take some away, and what each one costs.

A layer's heads meet in the columns of `out_lin`, `dim / n_heads` for each, and its neurons in those of `lin2`, one
for each. Taking a head away drops its rows of the query, key and value layers and its columns of `out_lin`; a neuron,
its row of `lin1` and its column of `lin2`. What is left computes what the whole layer would with the others
multiplied by zero.

Costs are multiply-adds counted as two operations, summed over calibration texts without their padding. For a text of
T tokens a head takes 8 T D d in its four linear maps and 4 T² d in its two products of activations, and a neuron 4 T
D. Where `export` lets the last layer compute its first token alone, a head takes 4 (T + 1) D d and 4 T d there, and a
neuron 4 D. Biases, softmax, GELU and LayerNorm are left out: together they are less than 1 % of a layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from optimize.checkpoint import encoder_layers, note_sizes, size_of
from optimize.interfaces import Feature

Kind = Literal["heads", "neurons"]


@dataclass(frozen=True)
class Site:
    """All heads or all neurons of a layer: the map that joins them, and the LayerNorm that its sum goes to.

    `width` columns of the map belong to each of them.
    """

    layer: int
    kind: Kind
    joins: Any
    norm: Any
    width: int

    @property
    def count(self) -> int:
        """How many heads or neurons there are."""
        return int(self.joins.in_features) // self.width


@dataclass(frozen=True)
class Costs:
    """Operations that one head and one neuron of each layer take on all calibration texts together."""

    heads: tuple[float, ...]
    neurons: tuple[float, ...]

    def of(self, site: Site, count: int = 1) -> float:
        """What `count` heads or neurons of a site take."""
        return count * (self.heads if site.kind == "heads" else self.neurons)[site.layer]

    def total(self, sites: Sequence[Site]) -> float:
        """What all of an encoder's heads and neurons take."""
        return sum(self.of(site, site.count) for site in sites)


@dataclass(frozen=True)
class Wanted:
    """What to keep: at most so many operations, and neurons in multiples of this in each layer."""

    operations: float
    multiple: int


def find_sites(model: Any) -> list[Site]:
    """Two sites for each layer, heads first, in the order in which a text passes them."""
    sites = []
    for index, layer in enumerate(encoder_layers(model)):
        width = int(layer.attention.attention_head_size)
        sites.append(Site(index, "heads", layer.attention.out_lin, layer.sa_layer_norm, width))
        sites.append(Site(index, "neurons", layer.ffn.lin2, layer.output_layer_norm, 1))
    return sites


def count_costs(model: Any, features: Sequence[Feature], *, sliced: bool = False) -> Costs:
    """The costs on these texts, with the last layer whole or sliced; each choice of a feature is a text."""
    width = int(model.config.dim)
    head = width // int(model.config.n_heads)
    lengths = [int(text.sum()) for one in features for text in one.inputs["attention_mask"].reshape(-1, one.tokens)]
    texts, tokens, pairs = len(lengths), sum(lengths), sum(length**2 for length in lengths)
    others = int(model.config.n_layers) - 1
    heads, neurons = 8.0 * tokens * width * head + 4.0 * pairs * head, 4.0 * tokens * width
    last = heads, neurons
    if sliced:
        last = 4.0 * (tokens + texts) * width * head + 4.0 * tokens * head, 4.0 * texts * width
    return Costs((*[heads] * others, last[0]), (*[neurons] * others, last[1]))


def keep_all(sites: Sequence[Site]) -> list[Any]:
    """The masks that keep everything."""
    import torch

    return [torch.ones(site.count, dtype=torch.bool) for site in sites]


def remove(model: Any, kept: Sequence[Any]) -> None:
    """Leave a model only what each site's mask keeps, in place, its config included; masks are boolean tensors."""
    for layer, heads, neurons in zip(encoder_layers(model), kept[0::2], kept[1::2], strict=True):
        attention, ffn = layer.attention, layer.ffn
        columns = heads.repeat_interleave(attention.attention_head_size).nonzero().flatten()
        for part in (attention.q_lin, attention.k_lin, attention.v_lin):
            _keep_rows(part, columns)
        _keep_columns(attention.out_lin, columns)
        attention.n_heads, attention.dim = int(heads.sum()), len(columns)
        _keep_rows(ffn.lin1, neurons.nonzero().flatten())
        _keep_columns(ffn.lin2, neurons.nonzero().flatten())
    note_sizes(model.config, [size_of(layer) for layer in encoder_layers(model)])


def _keep_rows(part: Any, rows: Any) -> None:
    part.weight.data = part.weight.data[rows].clone()
    part.bias.data = part.bias.data[rows].clone()
    part.out_features = len(rows)


def _keep_columns(part: Any, columns: Any) -> None:
    part.weight.data = part.weight.data[:, columns].clone()
    part.in_features = len(columns)
