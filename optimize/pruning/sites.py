"""Where the outputs of attention heads and FFN neurons are summed, and how to take some away.

A layer's output projections are `out_lin`, with `dim / n_heads` columns for each head, and `lin2`, with one for each
neuron. Taking a head away drops its rows of the query, key and value layers and its columns of `out_lin`; a neuron,
its row of `lin1` and its column of `lin2`. What is left computes what the whole layer would with the others
multiplied by zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from optimize.checkpoint import encoder_layers, note_sizes, size_of

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import LayerNorm, Linear
    from transformers import PreTrainedModel

Kind = Literal["heads", "neurons"]


@dataclass(frozen=True)
class Site:
    """All heads or all neurons of a layer: their output projection, and the LayerNorm that its sum goes to.

    `width` columns of the projection belong to each of them.
    """

    layer: int
    kind: Kind
    projection: Linear
    norm: LayerNorm
    width: int

    @property
    def count(self) -> int:
        """How many heads or neurons there are."""
        return int(self.projection.in_features) // self.width


def find_sites(model: PreTrainedModel) -> list[Site]:
    """Two sites for each layer, heads first, in the order in which a text passes them."""
    sites = []
    for index, layer in enumerate(encoder_layers(model)):
        width = int(layer.attention.attention_head_size)
        sites.append(Site(index, "heads", layer.attention.out_lin, layer.sa_layer_norm, width))
        sites.append(Site(index, "neurons", layer.ffn.lin2, layer.output_layer_norm, 1))
    return sites


def keep_all(sites: Sequence[Site]) -> list[Tensor]:
    """The masks that keep everything."""
    import torch

    return [torch.ones(site.count, dtype=torch.bool) for site in sites]


def remove(model: PreTrainedModel, kept: Sequence[Tensor]) -> None:
    """Leave a model only what each site's mask keeps, in place, its config included; masks are boolean tensors."""
    for layer, heads, neurons in zip(encoder_layers(model), kept[0::2], kept[1::2], strict=True):
        attention, ffn = layer.attention, layer.ffn
        columns = heads.repeat_interleave(attention.attention_head_size).nonzero().flatten()
        for part in (attention.q_lin, attention.k_lin, attention.v_lin):
            _keep_rows(part, columns)
        _keep_columns(attention.out_lin, columns)
        # transformers reads both in `forward`; `dim` is there the width of all heads, not that of the model.
        attention.n_heads, attention.dim = int(heads.sum()), len(columns)
        _keep_rows(ffn.lin1, neurons.nonzero().flatten())
        _keep_columns(ffn.lin2, neurons.nonzero().flatten())
    note_sizes(model.config, [size_of(layer) for layer in encoder_layers(model)])


def _keep_rows(part: Linear, rows: Tensor) -> None:
    # A copy, for a view would keep the whole matrix in memory and in what is saved.
    part.weight.data = part.weight.data[rows].clone()
    part.bias.data = part.bias.data[rows].clone()
    part.out_features = len(rows)


def _keep_columns(part: Linear, columns: Tensor) -> None:
    part.weight.data = part.weight.data[:, columns].clone()
    part.in_features = len(columns)
