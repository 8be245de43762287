"""Which whole layers to drop, and a model without them, whose other layers stand in for them.

Layers are dropped one at a time, as Sajjad et al. (2023, arXiv 2004.03844) drop them after their effect on a task; here
it is the one without which the answers diverge least from the dense model's, labels or not. A layer that has dropped
ones right behind it stands for the last of them: it takes over that layer's output LayerNorm and is fitted to give
what that layer gives (`pruning.refit`), before its absence is judged. Those in front of the first layer that is left
are not stood for by any; the layers behind them make up for them as far as they can.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Literal

from optimize.checkpoint import encoder_layers, layers_stood_for, note_sizes, size_of
from optimize.errors import StageError
from optimize.interfaces import Context
from optimize.pruning.refit import places_stood_for, refit
from optimize.training.batches import Batch
from optimize.training.distillation import Pair, mean_loss
from optimize.training.labels import Answers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TRIAL_BATCHES = 8
"""With so many batches, short texts to long ones, layers are tried."""


@dataclass(frozen=True)
class Shortened:
    """A model and the places of its layers in the dense model that it was made from."""

    model: PreTrainedModel
    kept: tuple[int, ...]


@dataclass(frozen=True)
class Shortening:
    """How shortened models are made from a dense one, and the batches by which they are fitted and compared."""

    dense: PreTrainedModel
    batches: Sequence[Batch]
    answers: Answers
    context: Context
    how: Literal["weights", "masks", "none"]
    ridge: float

    def make(self, kept: Sequence[int]) -> Shortened:
        """A model with the layers in these places alone, fitted to stand in for the others."""
        short = shorten(self.dense, kept, takes_over=self.how != "none")
        if self.how != "none":
            how, ridge, context = self.how, self.ridge, self.context
            refit(short.model, self.dense, self.batches, how=how, ridge=ridge, context=context, kept=kept)
        return short

    def divergence(self, kept: Sequence[int], batches: Sequence[Batch]) -> float:
        """How far the answers of such a model to these batches are from the dense model's."""
        pair = Pair(self.make(kept).model, self.dense, self.context.head, self.answers, temperature=1.0)
        return mean_loss(pair, batches)


def drop_layers(shortening: Shortening, count: int) -> Shortened:
    """The dense model without `count` layers, itself where that is none; raises StageError where none would be left."""
    every = tuple(range(len(encoder_layers(shortening.dense))))
    if not count:
        return Shortened(shortening.dense, every)
    if count >= len(every):
        raise StageError(
            f"prune: 'drop_layers' is {count} and the model has {len(every)} layers, of which one must stay; "
            f"set it to {len(every) - 1} at most"
        )
    return shortening.make(_choose(shortening, every, count))


def _choose(shortening: Shortening, kept: tuple[int, ...], count: int) -> tuple[int, ...]:
    """Of these places those to keep without `count` of them."""
    few = shortening.batches[:: math.ceil(len(shortening.batches) / TRIAL_BATCHES)]
    # What was fitted to some texts has to be judged by others.
    trial, held_out = replace(shortening, batches=few[::2]), few[1::2] or few
    done, trials = 0, sum(len(kept) - dropped for dropped in range(count))
    for _ in range(count):
        losses = {}
        for left in combinations(kept, len(kept) - 1):
            losses[left] = trial.divergence(left, held_out)
            done += 1
            shortening.context.progress.step("drop layers", done, trials)
        kept = min(losses, key=losses.__getitem__)
    return kept


def shorten(dense: PreTrainedModel, kept: Sequence[int], *, takes_over: bool) -> Shortened:
    """The dense model with the layers in these places alone, unfitted, and what its config then has to say.

    A layer `takes_over` the output LayerNorm of the one it stands for, or keeps its own.
    """
    model = copy.deepcopy(dense)
    layers = encoder_layers(model)
    stood_for = places_stood_for(kept, len(layers))
    if takes_over:
        for place, other in zip(kept, stood_for, strict=True):
            layers[place].output_layer_norm = copy.deepcopy(layers[other].output_layer_norm)
    # From the end, so that the places of those still to go stay the same.
    for place in reversed(range(len(layers))):
        if place not in kept:
            del layers[place]
    original = layers_stood_for(dense.config)
    note_sizes(model.config, [size_of(layer) for layer in layers], [original[place] for place in stood_for])
    return Shortened(model, tuple(kept))
