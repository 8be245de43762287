"""Train a small DistilBERT on a head's generated text and write it as a complete checkpoint.

The model has the layers of DistilBERT (Sanh et al., 2019), only fewer and narrower, with widths
that are multiples of 32 so that INT8 kernels have whole blocks to work on. It is trained on one
thread: at this size a second thread gains little, stalls on a busy machine, and changes the
order of sums, and with it the weights.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from optimize.checkpoint import save_model
from optimize.demo.recipe import Recipe
from optimize.demo.tokenizer import MODEL_MAX_LENGTH, build_tokenizer
from optimize.interfaces import Row

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

WARMUP_SHARE = 0.1
WEIGHT_DECAY = 0.01
BETAS = (0.9, 0.98)  # a shorter memory than AdamW's default, for runs of under 1000 steps
GRADIENT_NORM = 1.0
POSITION_SCALE = 0.1  # near the size of the words' own embeddings at the start, so that neither drowns the other


def learning_rate_scale(step: int, steps: int) -> float:
    """Rise linearly over the first tenth of the steps, then fall linearly towards zero."""
    warmup = max(1, round(WARMUP_SHARE * steps))
    return min((step + 1) / warmup, (steps - step) / max(1, steps - warmup))


def endless_batches(rows: Sequence[Row], size: int, rng: Random) -> Iterator[list[Row]]:
    """Yield batches for ever; every row is seen once before any is seen again."""
    queue: list[Row] = []
    while True:
        while len(queue) < size:
            queue += rng.sample(rows, len(rows))
        yield queue[:size]
        del queue[:size]


def build_model(recipe: Recipe, tokenizer: "PreTrainedTokenizerBase") -> "PreTrainedModel":
    """Return the recipe's architecture with random weights, from torch's current seed."""
    import transformers

    # For a head without names of classes, the ones that transformers gives by itself.
    names = dict(enumerate(recipe.labels)) or {0: "LABEL_0", 1: "LABEL_1"}
    config = transformers.DistilBertConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=MODEL_MAX_LENGTH,
        dim=128,
        hidden_dim=512,
        n_layers=2,
        n_heads=4,
        dropout=0.05,
        attention_dropout=0.05,
        seq_classif_dropout=0.05,
        qa_dropout=0.0,
        initializer_range=0.05,
        id2label=names,
        label2id={name: index for index, name in names.items()},
    )
    # Otherwise transformers would guess from the first labels that it is given.
    if recipe.architecture == "DistilBertForSequenceClassification":
        config.problem_type = "single_label_classification"
    model = getattr(transformers, recipe.architecture)(config)
    _set_sinusoids(model.base_model.embeddings.position_embeddings.weight)
    return model


def _set_sinusoids(table: "Tensor") -> None:
    """Start the positions (count x width) as scaled sinusoids (Vaswani et al., 2017).

    Neighbours then begin alike, and positions beyond the training texts stay sensible.
    """
    import torch

    count, width = table.shape
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    angles = torch.arange(count).unsqueeze(1) * rates
    with torch.no_grad():
        table.copy_(POSITION_SCALE * torch.cat([angles.sin(), angles.cos()], dim=1))


@contextmanager
def _reproducible(seed: int) -> Iterator[None]:
    """Seed torch and hold it to one thread; put both back as they were."""
    import torch

    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def train_recipe(
    recipe: Recipe,
    rows: Sequence[Row],
    out: Path,
    *,
    seed: int,
    steps: int,
    progress: Callable[[int, int], None],
) -> list[float]:
    """Train on the rows, write the checkpoint into `out`, and return the loss of every step."""
    tokenizer = build_tokenizer(text for row in rows for text in recipe.texts(row))
    rng = Random(seed)
    batches = endless_batches(rows, recipe.batch_size, rng)
    with _reproducible(seed):
        model = build_model(recipe, tokenizer)
        losses = _fit(
            model,
            lambda: recipe.loss(model, tokenizer, next(batches), rng),
            recipe.learning_rate,
            steps=steps,
            progress=progress,
        )
    save_model(model.eval(), out)
    tokenizer.save_pretrained(out)
    return losses


def _fit(
    model: "PreTrainedModel",
    next_loss: "Callable[[], Tensor]",
    peak_rate: float,
    *,
    steps: int,
    progress: Callable[[int, int], None],
) -> list[float]:
    """Lower the losses of the model, one batch a step, and return them."""
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=peak_rate, betas=BETAS, weight_decay=WEIGHT_DECAY)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_scale(step, steps))
    losses = []
    model.train()
    for step in range(steps):
        optimizer.zero_grad()
        loss = next_loss()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_NORM)
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
        progress(step + 1, steps)
    return losses
