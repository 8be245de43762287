"""What a DistilBERT computes, written for tracing: the same graph whatever version of transformers built the model.

The modules and their weights are transformers'; what they compute is DistilBERT's (Sanh et al., 2019), and so are the
answers. Against transformers' own forwards a graph has less to compute:

- The mask is added once as [B, 1, 1, T], and not widened to a row for every query.
- Text classification and multiple choice read the first token of the last layer alone: with `sliced`, that layer
  computes its queries, output projection and FFN for that token only.
- With `lean`, the scale of the attention's scores goes into the weights and the bias of the query layer.

Otherwise the attention is in the form of BERT's own code, which ONNX Runtime's optimizer knows in all its versions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import MethodType
from typing import TYPE_CHECKING

from optimize.checkpoint import encoder_layers
from optimize.sentences.configs import OUTPUT
from optimize.sentences.modules import traced

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module
    from transformers import PreTrainedModel
    from transformers.modeling_outputs import BaseModelOutput


def write_out(model: PreTrainedModel, *, sliced: bool = False, lean: bool = False) -> None:
    """Give a model's encoder these forwards, in place; only a `lean` one has other weights."""
    layers = encoder_layers(model)
    for layer in layers:
        layer.forward = MethodType(_layer, layer)
        layer.attention.forward = MethodType(_lean_attention if lean else _attention, layer.attention)
        if lean:
            _scale_queries(layer.attention)
    if sliced:
        layers[-1].forward = MethodType(_first_token, layers[-1])
    encoder = getattr(model, "distilbert", model)
    encoder.transformer.forward = MethodType(_layers, encoder.transformer)
    encoder.forward = MethodType(_encoder, encoder)


def answering(model: PreTrainedModel, outputs: Sequence[str]) -> Module:
    """What answers token ids and a mask with a tuple of these outputs and no other: the model itself, which is changed,
    or, where a sentence embedding is among them, a module around it.
    """
    if OUTPUT in outputs:
        return traced(model, outputs)
    usual = model.forward

    def forward(input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        answer = usual(input_ids=input_ids, attention_mask=attention_mask)
        return tuple(answer[name] for name in outputs)

    model.forward = forward
    return model


def _encoder(
    encoder: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor | None = None, **_: object
) -> BaseModelOutput:
    """Hidden states, [B, T, D]; a head calls it with options besides, which say nothing of what is computed."""
    import torch
    from transformers.modeling_outputs import BaseModelOutput

    hidden = encoder.embeddings(input_ids)
    if attention_mask is None:
        attention_mask = torch.ones_like(input_ids)
    kept = attention_mask[:, None, None, :].to(hidden.dtype)
    mask = (1.0 - kept) * torch.finfo(hidden.dtype).min
    return BaseModelOutput(last_hidden_state=encoder.transformer(hidden, mask))


def _layers(transformer: Module, hidden: Tensor, mask: Tensor) -> Tensor:
    for layer in transformer.layer:
        hidden = layer(hidden, mask)
    return hidden


def _layer(layer: Module, hidden: Tensor, mask: Tensor) -> Tensor:
    return _rest(layer, hidden, layer.attention(hidden, hidden, mask))


def _first_token(layer: Module, hidden: Tensor, mask: Tensor) -> Tensor:
    first = hidden[:, :1]
    return _rest(layer, first, layer.attention(first, hidden, mask))


def _rest(layer: Module, hidden: Tensor, attended: Tensor) -> Tensor:
    """A layer after its attention, for the tokens that were asked for."""
    hidden = layer.sa_layer_norm(attended + hidden)
    result: Tensor = layer.output_layer_norm(layer.ffn(hidden) + hidden)
    return result


def _attention(attention: Module, asking: Tensor, hidden: Tensor, mask: Tensor) -> Tensor:
    """Attention of [B, Tq, D] to [B, T, D]; `mask` is additive, [B, 1, 1, T]."""
    import torch

    queries, keys, values = _heads(attention, asking, hidden)
    scale = math.sqrt(attention.q_lin.out_features // attention.n_heads)
    scores = torch.matmul(queries, keys.transpose(2, 3)) / scale + mask
    return _join(attention, scores, values)


def _lean_attention(attention: Module, asking: Tensor, hidden: Tensor, mask: Tensor) -> Tensor:
    """The same on queries that are scaled already; keys are transposed in one step."""
    import torch

    queries, keys, values = _heads(attention, asking, hidden)
    return _join(attention, torch.matmul(queries, keys.transpose(2, 3)) + mask, values)


def _heads(attention: Module, asking: Tensor, hidden: Tensor) -> list[Tensor]:
    """Queries, keys and values as [B, H, T, D/H]."""
    parts = []
    for layer, states in (
        (attention.q_lin, asking),
        (attention.k_lin, hidden),
        (attention.v_lin, hidden),
    ):
        split = (hidden.shape[0], -1, attention.n_heads, layer.out_features // attention.n_heads)
        parts.append(layer(states).view(split).transpose(1, 2))
    return parts


def _join(attention: Module, scores: Tensor, values: Tensor) -> Tensor:
    """From scores, [B, H, Tq, T], to the attention's output, [B, Tq, D]."""
    import torch

    context = torch.matmul(torch.softmax(scores, dim=-1), values).transpose(1, 2)
    result: Tensor = attention.out_lin(context.reshape(values.shape[0], -1, attention.out_lin.in_features))
    return result


def _scale_queries(attention: Module) -> None:
    """Softmax(QKᵀ / sqrt(d)): what divides the scores divides the queries just as well."""
    import torch

    scale = 1.0 / math.sqrt(attention.q_lin.out_features // attention.n_heads)
    with torch.no_grad():
        attention.q_lin.weight.mul_(scale)
        attention.q_lin.bias.mul_(scale)
