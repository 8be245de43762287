"""What any stage that trains needs around its loop: samples of examples, batches without end, scores, and a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from optimize.errors import StageError
from optimize.evaluate.accuracy import COSINE_TO_REFERENCE
from optimize.evaluate.predict import padded_tokens, plan_batches, run_split
from optimize.interfaces import Context, Encoded, Feature, Feed, Head, Score, Session
from optimize.stages._distillation import Answers, Batch, make_batch
from optimize.stages._labels import labels_of

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


def first_examples(encoded: Encoded, tokens: int) -> Encoded:
    """The first examples, at least one, that have up to `tokens` tokens together."""
    total = 0
    for feature in encoded.features:
        total += padded_tokens(feature)
        if total > tokens and feature.example:
            kept = tuple(one for one in encoded.features if one.example < feature.example)
            return Encoded(kept, encoded.gold[: feature.example], 0)
    return encoded


def calibration_sample(context: Context, tokens: int, *, stage: str) -> Encoded:
    """The calibration texts that a stage without training goes by; raises StageError where there are none."""
    sample = first_examples(context.calibration, tokens)
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
