"""Batches, and a model's answers to them: what stages that train, or prune by answers, need around their own work."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from optimize.checkpoint import encoder_layers, layer_states, layers_stood_for
from optimize.errors import StageError
from optimize.evaluate.accuracy import COSINE_TO_REFERENCE
from optimize.evaluate.predict import collate, plan_batches, run_split
from optimize.interfaces import Context, Encoded, Feature, Feed, Head, Score, Session
from optimize.training.labels import Answers, labels_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn import Parameter
    from transformers import PreTrainedModel

BATCH_SIZE = 32
"""Features that stages without training look at together, at most."""
NEVER = -1e4
"""A logit of probability 0 whose differences are still finite."""


@dataclass(frozen=True)
class Batch:
    """Padded inputs; `real` [B, T] are not padding (each choice is a text), `decides` [B, T] are what the head reads.

    `labels` are what the rows of an answer should be, as `labels_of` lays them out; None where nobody knows.
    """

    inputs: Mapping[str, Tensor]
    real: Tensor
    decides: Tensor
    labels: Tensor | None = None

    def on(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        inputs = {name: tensor.to(device) for name, tensor in self.inputs.items()}
        labels = None if self.labels is None else self.labels.to(device)
        return Batch(inputs, self.real.to(device), self.decides.to(device), labels)


@dataclass(frozen=True)
class Answer:
    """Rows of logits, values or vectors [N, width], and hidden states [B, T, D] after every layer.

    Hidden states are numbered by the layer of the original model that a layer stands for.
    """

    rows: Tensor
    hidden: Mapping[int, Tensor]


def calibration_sample(context: Context, tokens: int, *, stage: str) -> Encoded:
    """The calibration texts that a stage without training goes by; raises StageError where there are none."""
    sample = context.calibration.first(tokens=tokens)
    if not sample.features:
        raise StageError(f"{stage}: there are no calibration texts; give some with --calibration-examples")
    return sample


def make_batch(features: Sequence[Feature], *, pad_id: int) -> Batch:
    """Pad features to their longest."""
    import torch

    inputs = {name: torch.from_numpy(array) for name, array in collate(features, pad_id=pad_id).items()}
    real = inputs["attention_mask"].bool()
    decides = real.clone()
    for row, feature in enumerate(features):
        if "positions" in feature.extra:
            decides[row] = False
            decides[row, torch.from_numpy(feature.extra["positions"])] = True
    return Batch(inputs, real.reshape(-1, real.shape[-1]), decides)


def make_batches(features: Sequence[Feature], model: PreTrainedModel, *, size: int, tokens: int) -> list[Batch]:
    """Batches of up to `size` features of similar length and `tokens` padded tokens."""
    plan, pad_id = plan_batches(features, size=size, tokens=tokens), pad_id_of(model)
    return [make_batch([features[index] for index in indices], pad_id=pad_id) for indices in plan]


def make_labelled(encoded: Encoded, model: PreTrainedModel, answers: Answers, *, size: int, tokens: int) -> list[Batch]:
    """The same, with the labels of those batches whose examples have them."""
    pad_id = pad_id_of(model)
    batches: list[Batch] = []
    for indices in plan_batches(encoded.features, size=size, tokens=tokens):
        features = [encoded.features[index] for index in indices]
        labels = labels_of(features, encoded.gold, answers)
        batches.append(replace(make_batch(features, pad_id=pad_id), labels=labels))
    return batches


def endless_batches(batches: Sequence[Batch], *, seed: int) -> Iterator[Batch]:
    """All batches in random order, for ever anew."""
    # A generator of its own: what a stage draws elsewhere must not change the order.
    rng = random.Random(seed)
    while True:
        yield from rng.sample(batches, len(batches))


def pad_id_of(model: PreTrainedModel) -> int:
    """The token that texts are padded with."""
    return int(model.config.pad_token_id or 0)


def trained_parameters(model: PreTrainedModel, *, tables: bool) -> list[Parameter]:
    """The parameters to train: all, or all but the embedding tables and what is tied to them."""
    import torch

    if not tables:
        for module in model.modules():
            if isinstance(module, torch.nn.Embedding):
                module.weight.requires_grad_(False)
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def answers_of(head: Head, encoded: Encoded) -> Answers:
    """What an answer is. The gold decides for classifiers: numbers and sets of classes are not softmaxed."""
    if head.rows_are != "logits":
        return head.rows_are
    if head.reads == "all tokens":
        return "classes"
    match encoded.gold[0]:
        case float():
            return "values"
        case tuple():
            return "sets"
        case _:
            return "classes"


def answer(model: PreTrainedModel, batch: Batch, head: Head) -> Answer:
    """The model's answer to a batch."""
    with _projecting(model, batch.decides) as projects, _listening(model) as states:
        outputs = model(**batch.inputs)
    found = [outputs[name] for name in head.outputs]
    hidden = dict(zip(layers_stood_for(model.config), states, strict=True))
    return Answer(found[0] if projects else _rows(found, batch, head), hidden)


@contextmanager
def _listening(model: PreTrainedModel) -> Iterator[list[Tensor]]:
    """What the layers say while the model runs, [B, T, D] each: not every class can be asked for it."""
    found: list[Tensor] = []
    hooks = [
        layer.register_forward_hook(lambda _, __, said: found.append(layer_states(said)))
        for layer in encoder_layers(model)
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _projecting(model: PreTrainedModel, decides: Tensor) -> Iterator[bool]:
    """Where the model projects on the vocabulary, let it do so at the tokens that decide, [P, V]."""
    projection = model.get_output_embeddings()
    if projection is None:
        yield False
        return
    # Logits of all tokens would be gigabytes: [B, T, V].
    hook = projection.register_forward_pre_hook(lambda _, inputs: (inputs[0][decides],))
    try:
        yield True
    finally:
        hook.remove()


def _rows(found: Sequence[Tensor], batch: Batch, head: Head) -> Tensor:
    """What the head reads of its outputs, [N, width]; of a logit per token, the tokens are the classes."""
    import torch

    if head.reads != "all tokens":
        return found[0]
    if head.rows_are == "vectors":
        weights = batch.decides.unsqueeze(-1).float()
        return (found[0] * weights).sum(dim=1) / weights.sum(dim=1)
    if found[0].dim() == 2:
        return torch.cat([logits.masked_fill(~batch.decides, NEVER) for logits in found])
    return found[0][batch.decides]


def session_of(model: PreTrainedModel, head: Head) -> Session:
    """A session that runs the model on its device, with the weights that it has at each call."""
    import torch

    def session(feed: Feed) -> Feed:
        inputs = {name: torch.from_numpy(array).to(model.device) for name, array in feed.items()}
        with torch.no_grad():
            outputs = model(**inputs)
        return {name: outputs[name].cpu().numpy() for name in head.outputs}

    return session


def score_of(model: PreTrainedModel, encoded: Encoded, head: Head) -> Score:
    """What the model scores on its head's metric."""
    return head.score(encoded, run_split(session_of(model, head), head, encoded, pad_id=pad_id_of(model)).answers)


def value_of(score: Score, reference: Score) -> float:
    """The metric; where there is no gold, the mean cosine to the reference's vectors."""
    statistics = score.statistics
    if score.metric == COSINE_TO_REFERENCE:
        statistics = (statistics * reference.statistics).sum(axis=1, keepdims=True)
    return float(score.aggregate(statistics))


@contextmanager
def reproducible(seed: int, threads: int) -> Iterator[None]:
    """Seed torch and give it so many threads; put both back as they were."""
    import torch

    before = torch.get_num_threads()
    # The CPU's generator alone: forking those of GPUs would start CUDA.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)
