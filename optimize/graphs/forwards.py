"""What is changed in a PyTorch model before it is traced, so that the graph has less to compute; answers stay the same.

- Text classification and multiple choice read the first token of the last layer alone: that layer then computes its
  queries, output projection and FFN for that token only.
- The traced attention finds its scale anew for each text, from shapes, and multiplies queries and keys by its root.
  Here it goes into the weights and the bias of the query layer.
"""

from __future__ import annotations

import math
import types
from typing import TYPE_CHECKING

from optimize.checkpoint import encoder_layers

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module
    from transformers import PreTrainedModel


def slice_readout(model: PreTrainedModel) -> None:
    """Let the last layer compute only what the first token needs."""

    def forward(layer: Module, x: Tensor, attn_mask: Tensor | None = None, *_: object, **__: object) -> tuple[Tensor]:
        first = x[:, :1]
        # SDPA's mask, [B, 1, Tq, Tk], has a row for each query; that of eager attention, [B, Tk], has none to cut.
        mask = attn_mask[:, :, :1] if attn_mask is not None and attn_mask.dim() == 4 else attn_mask
        attended = layer.attention(query=first, key=x, value=x, mask=mask)[0]
        hidden = layer.sa_layer_norm(attended + first)
        return (layer.output_layer_norm(layer.ffn(hidden) + hidden),)

    layer = encoder_layers(model)[-1]
    layer.forward = types.MethodType(forward, layer)


def use_lean_attention(model: PreTrainedModel) -> None:
    """Replace the attention's forward in every layer of a PyTorch model, and scale its queries, in place."""
    import torch

    for layer in encoder_layers(model):
        attention = layer.attention
        scale = 1.0 / math.sqrt(attention.q_lin.out_features // attention.n_heads)
        # Softmax(QKᵀ / sqrt(d)): what divides the scores divides the queries just as well.
        with torch.no_grad():
            attention.q_lin.weight.mul_(scale)
            attention.q_lin.bias.mul_(scale)
        attention.forward = types.MethodType(_forward, attention)


def _forward(
    attention: Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, *_: object, **__: object
) -> tuple[Tensor]:
    """DistilBERT's attention on queries that are scaled already; `mask` is additive, [B, 1, Tq, Tk]."""
    import torch

    batch, heads = query.shape[0], attention.n_heads
    queries, keys, values = (
        layer(x).view(batch, -1, heads, layer.out_features // heads)
        for layer, x in ((attention.q_lin, query), (attention.k_lin, key), (attention.v_lin, value))
    )
    scores = torch.matmul(queries.transpose(1, 2), keys.permute(0, 2, 3, 1)) + mask
    context = torch.matmul(torch.softmax(scores, dim=-1), values.transpose(1, 2))
    return (attention.out_lin(context.transpose(1, 2).reshape(batch, -1, attention.v_lin.out_features)),)
