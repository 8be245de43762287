"""What heads and neurons cost: operations, bytes, or time as measured on the target.

Operations are those of `layer_flops`, summed over calibration texts without their padding: for a text of T tokens a
head takes 8 T D d in its four linear maps and 4 T² d in its two products of activations, and a neuron 4 T D. Where
`export` lets the last layer compute its first token alone, a head takes 4 (T + 1) D d and 4 T d there, and a neuron
4 D.

Bytes are weights: 4 D d + 3 d for a head and 2 D + 1 for a neuron, alike in every layer.

For time see `pruning.times`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from optimize.checkpoint import LayerSize, layer_flops
from optimize.interfaces import Feature
from optimize.pruning.sites import Site

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Measure = Literal["flops", "latency", "size"]
Curve = tuple[tuple[int, float], ...]
"""What so many heads or neurons cost together: points by rising count, straight lines between and beyond them."""
FLOAT_BYTES = 4.0


@dataclass(frozen=True)
class Costs:
    """What the heads and the neurons of each layer cost; `fixed` is what layers cost whatever they keep."""

    heads: tuple[Curve, ...]
    neurons: tuple[Curve, ...]
    fixed: float = 0.0

    def of(self, site: Site, count: int = 1) -> float:
        """What `count` heads or neurons of a site cost."""
        curves = self.heads if site.kind == "heads" else self.neurons
        return _at(curves[site.layer], count)

    def of_layers(self, count: int) -> Costs:
        """The costs of a model with so many of the layers, which are alike but for the last one."""
        heads = (*self.heads[: count - 1], self.heads[-1])
        neurons = (*self.neurons[: count - 1], self.neurons[-1])
        return Costs(heads, neurons, self.fixed * (count / len(self.heads)))

    def total(self, sites: Sequence[Site]) -> float:
        """What an encoder's layers cost."""
        return self.fixed + sum(self.of(site, site.count) for site in sites)


def linear(unit: float) -> Curve:
    """The curve of a cost that is the same for each."""
    return ((0, 0.0), (1, unit))


def _at(curve: Curve, count: int) -> float:
    """The cost of so many, on the line through the two points about it, or the two nearest."""
    right = 1
    while right < len(curve) - 1 and curve[right][0] < count:
        right += 1
    (x, y), (end, top) = curve[right - 1], curve[right]
    return y + (top - y) * (count - x) / (end - x)


def count_operations(model: PreTrainedModel, features: Sequence[Feature], *, sliced: bool = False) -> Costs:
    """The operations on these texts, with the last layer whole or sliced; each choice of a feature is a text."""
    D = int(model.config.dim)
    d = D // int(model.config.n_heads)
    lengths = text_lengths(features)
    heads = neurons = 0.0
    for T in lengths:
        heads += layer_flops(LayerSize(1, 0), width=D, head_width=d, tokens=T)
        neurons += layer_flops(LayerSize(0, 1), width=D, head_width=d, tokens=T)
    last_heads, last_neurons = heads, neurons
    if sliced:
        # Keys and values of all tokens, and query, output and neurons of one.
        texts, tokens = len(lengths), sum(lengths)
        last_heads = 4.0 * (tokens + texts) * D * d + 4.0 * tokens * d
        last_neurons = 4.0 * texts * D
    others = int(model.config.n_layers) - 1
    return Costs(
        (*[linear(heads)] * others, linear(last_heads)),
        (*[linear(neurons)] * others, linear(last_neurons)),
    )


def text_lengths(features: Sequence[Feature]) -> list[int]:
    """The tokens of each text without padding; each choice of a feature is a text."""
    lengths: list[int] = []
    for feature in features:
        masks = feature.inputs["attention_mask"].reshape(-1, feature.tokens)
        lengths += [int(count) for count in masks.sum(axis=1)]
    return lengths


def count_bytes(model: PreTrainedModel) -> Costs:
    """The bytes of FP32 weights."""
    D, layers = int(model.config.dim), int(model.config.n_layers)
    d = D // int(model.config.n_heads)
    # Query, key and value have a bias for each of a head's rows. The output's bias belongs to no head.
    head = FLOAT_BYTES * (4 * D * d + 3 * d)
    neuron = FLOAT_BYTES * (2 * D + 1)
    return Costs((linear(head),) * layers, (linear(neuron),) * layers)
