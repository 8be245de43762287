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
from typing import Any, Literal

from optimize.checkpoint import LayerSize, layer_flops
from optimize.interfaces import Feature
from optimize.pruning.sites import Site

Measure = Literal["flops", "latency", "size"]
Curve = tuple[tuple[int, float], ...]
"""What so many heads or neurons cost together: points by rising count, straight lines between and beyond them."""


@dataclass(frozen=True)
class Costs:
    """What the heads and the neurons of each layer cost; `fixed` is what layers cost whatever they keep."""

    heads: tuple[Curve, ...]
    neurons: tuple[Curve, ...]
    fixed: float = 0.0

    def of(self, site: Site, count: int = 1) -> float:
        """What `count` heads or neurons of a site cost."""
        return _at((self.heads if site.kind == "heads" else self.neurons)[site.layer], count)

    def of_layers(self, count: int) -> Costs:
        """The costs of a model with so many of the layers, which are alike but for the last one."""
        share = count / len(self.heads)
        heads, neurons = ((*each[: count - 1], each[-1]) for each in (self.heads, self.neurons))
        return Costs(heads, neurons, self.fixed * share)

    def total(self, sites: Sequence[Site]) -> float:
        """What an encoder's layers cost."""
        return self.fixed + sum(self.of(site, site.count) for site in sites)


@dataclass(frozen=True)
class Wanted:
    """What to keep: what costs at most so much, and neurons in multiples of this in each layer."""

    cost: float
    multiple: int


def linear(unit: float) -> Curve:
    """The curve of a cost that is the same for each."""
    return ((0, 0.0), (1, unit))


def _at(curve: Curve, count: int) -> float:
    """The cost of so many, on the line through the two points about it, or the two nearest."""
    place = next((i for i, point in enumerate(curve) if point[0] >= count), len(curve) - 1)
    (x, y), (end, top) = curve[max(place, 1) - 1], curve[max(place, 1)]
    return y + (top - y) * (count - x) / (end - x)


def count_operations(model: Any, features: Sequence[Feature], *, sliced: bool = False) -> Costs:
    """The operations on these texts, with the last layer whole or sliced; each choice of a feature is a text."""
    width = int(model.config.dim)
    head = width // int(model.config.n_heads)
    lengths = [int(text.sum()) for one in features for text in one.inputs["attention_mask"].reshape(-1, one.tokens)]
    texts, tokens, others = len(lengths), sum(lengths), int(model.config.n_layers) - 1
    heads, neurons = (
        float(sum(layer_flops(one, width=width, head_width=head, tokens=length) for length in lengths))
        for one in (LayerSize(1, 0), LayerSize(0, 1))
    )
    last = heads, neurons
    if sliced:
        last = 4.0 * (tokens + texts) * width * head + 4.0 * tokens * head, 4.0 * texts * width
    return Costs(
        (*[linear(heads)] * others, linear(last[0])),
        (*[linear(neurons)] * others, linear(last[1])),
    )


def count_bytes(model: Any) -> Costs:
    """The bytes of FP32 weights."""
    width, layers = int(model.config.dim), int(model.config.n_layers)
    head = width // int(model.config.n_heads)
    heads, neurons = 4.0 * (4 * width * head + 3 * head), 4.0 * (2 * width + 1)
    return Costs((linear(heads),) * layers, (linear(neurons),) * layers)
