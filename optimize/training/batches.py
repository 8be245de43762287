"""What any stage that trains needs around its loop: samples of examples, batches without end, scores, and a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from optimize.checkpoint import layers_stood_for
from optimize.errors import StageError
from optimize.evaluate.accuracy import COSINE_TO_REFERENCE
from optimize.evaluate.predict import collate, plan_batches, run_split
from optimize.interfaces import Context, Encoded, Feature, Feed, Head, Score, Session
from optimize.training.labels import Answers, labels_of

BATCH_SIZE = 32
"""Features that stages without training look at together, at most."""


@contextmanager
def reproducible(context: Context) -> Iterator[None]:
    """Seed torch and give it the context's threads; put both back as they were."""
    import torch

    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(context.seed)
        torch.set_num_threads(context.threads)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def calibration_sample(context: Context, tokens: int, *, stage: str) -> Encoded:
    """The calibration texts that a stage without training goes by; raises StageError where there are none."""
    sample = context.calibration.first(tokens=tokens)
    if not sample.features:
        raise StageError(f"{stage}: there are no calibration texts; give some with --calibration-examples")
    return sample


def make_batches(features: Sequence[Feature], model: Any, *, size: int, tokens: int) -> list[Batch]:
    """Batches of up to `size` features of similar length and `tokens` padded tokens."""
    plan, pad_id = plan_batches(features, size=size, tokens=tokens), pad_id_of(model)
    return [make_batch([features[index] for index in indices], pad_id=pad_id) for indices in plan]


def make_labelled(encoded: Encoded, model: Any, answers: Answers, *, size: int, tokens: int) -> list[Batch]:
    """The same, with the labels of those batches whose examples have them."""
    features, pad_id = encoded.features, pad_id_of(model)
    batches = []
    for indices in plan_batches(features, size=size, tokens=tokens):
        some = [features[index] for index in indices]
        batches.append(replace(make_batch(some, pad_id=pad_id), labels=labels_of(some, encoded.gold, answers)))
    return batches


def supply(batches: Sequence[Batch], *, seed: int) -> Iterator[Batch]:
    """All batches in random order, for ever anew."""
    rng = random.Random(seed)
    while True:
        yield from rng.sample(batches, len(batches))


def trained_parameters(model: Any, *, tables: bool) -> list[Any]:
    """The parameters to train: all, or all but the embedding tables and what is tied to them."""
    import torch

    for module in [] if tables else model.modules():
        if isinstance(module, torch.nn.Embedding):
            module.weight.requires_grad_(False)
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def pad_id_of(model: Any) -> int:
    """The token that texts are padded with."""
    return int(model.config.pad_token_id or 0)


def session_of(model: Any, head: Head) -> Session:
    """The model as it is at the time, asked where it lies."""
    import torch

    def session(feed: Feed) -> Feed:
        with torch.no_grad():
            outputs = model(**{name: torch.from_numpy(array).to(model.device) for name, array in feed.items()})
        return {name: outputs[name].cpu().numpy() for name in head.outputs}

    return session


def score_of(model: Any, encoded: Encoded, head: Head) -> Score:
    """What the model scores on its head's metric."""
    return head.score(encoded, run_split(session_of(model, head), head, encoded, pad_id=pad_id_of(model)).answers)


def value_of(score: Score, reference: Score) -> float:
    """The metric; where there is no gold, the mean cosine to the reference's vectors."""
    statistics = score.statistics
    if score.metric == COSINE_TO_REFERENCE:
        statistics = (statistics * reference.statistics).sum(axis=1, keepdims=True)
    return float(score.aggregate(statistics))


@dataclass(frozen=True)
class Batch:
    """Padded inputs; `real` [B, T] are no padding (each choice is a text), `decides` [B, T] are what the head reads.

    `labels` say what the rows of an answer should be, as `labels_of` lays them out; None where nobody knows.
    """

    inputs: dict[str, Any]
    real: Any
    decides: Any
    labels: Any = None

    def on(self, device: Any) -> Batch:
        """The same batch on a device."""
        inputs = {name: tensor.to(device) for name, tensor in self.inputs.items()}
        labels = None if self.labels is None else self.labels.to(device)
        return Batch(inputs, self.real.to(device), self.decides.to(device), labels)


@dataclass(frozen=True)
class Answer:
    """Rows of logits, values or vectors [N, width], and the hidden states [B, T, D] after every layer, by the layer of
    the original model that it stands for."""

    rows: Any
    hidden: dict[int, Any]


def answers_of(head: Head, encoded: Encoded) -> Answers:
    """What an answer is, by the gold: to numbers and to sets of classes, a softmax would say nothing."""
    if head.rows_are != "logits":
        return head.rows_are
    if head.reads == "first token" and isinstance(encoded.gold[0], float):
        return "values"
    return "sets" if head.reads == "first token" and isinstance(encoded.gold[0], tuple) else "classes"


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


def answer(model: Any, batch: Batch, head: Head) -> Answer:
    """What the model says to a batch."""
    with _projecting(model, batch.decides) as projects:
        outputs = model(**batch.inputs, output_hidden_states=True)
    found = [outputs[name] for name in head.outputs]
    hidden = dict(zip(layers_stood_for(model.config), outputs.hidden_states[1:], strict=True))
    return Answer(found[0] if projects else _rows(found, batch, head), hidden)


@contextmanager
def _projecting(model: Any, decides: Any) -> Iterator[bool]:
    """Where the model projects on the vocabulary, let it do so at the tokens that decide, [P, V]."""
    projection = model.get_output_embeddings()
    if projection is None:
        yield False
        return
    hook = projection.register_forward_pre_hook(lambda _, inputs: (inputs[0][decides],))
    try:
        yield True
    finally:
        hook.remove()


def _rows(found: Sequence[Any], batch: Batch, head: Head) -> Any:
    """What the head reads of its outputs, [N, width]; of a logit per token, the tokens are the classes."""
    import torch

    if head.reads == "first token":
        return found[0]
    if head.rows_are == "vectors":
        weights = batch.decides.unsqueeze(-1).float()
        return (found[0] * weights).sum(dim=1) / weights.sum(dim=1)
    if found[0].dim() == 2:
        return torch.cat([logits.masked_fill(~batch.decides, NEVER) for logits in found])
    return found[0][batch.decides]


NEVER = -1e4
"""A logit of probability 0 whose differences are still finite."""
