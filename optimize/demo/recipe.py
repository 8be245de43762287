"""What one head's demo consists of: a way to draw rows and a way to learn from them.

A recipe is data and two or three functions, so that adding a head is one file with a `RECIPE` and
one line in the table. Nothing here imports torch: the loss functions do so when they run.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from optimize.interfaces import Row

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Loss = Callable[["PreTrainedModel", "PreTrainedTokenizerBase", Sequence[Row], Random], "Tensor"]


@dataclass(frozen=True)
class Recipe:
    """How the demo of one head is made.

    `draw` returns one row in the Hub's columns. `texts` returns the strings of a row that a model
    reads: they feed the vocabulary, and two rows with the same texts are duplicates. `loss` maps
    (model, tokenizer, rows, rng) to a scalar tensor. `architecture` names a class of transformers.
    """

    draw: Callable[[Random], Row]
    texts: Callable[[Row], list[str]]
    loss: Loss
    architecture: str
    labels: tuple[str, ...] = ()
    train_rows: int = 4000
    steps: int = 500
    batch_size: int = 32
    learning_rate: float = 1e-3
