"""What any stage that trains needs: samples of examples, batches without end, scores, and a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from optimize.evaluate.accuracy import COSINE_TO_REFERENCE
from optimize.evaluate.predict import padded_tokens, plan_batches, run_split
from optimize.interfaces import Context, Encoded, Feature, Feed, Head, Score
from optimize.stages._distillation import Batch, make_batch


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


def make_batches(features: Sequence[Feature], model: Any, *, size: int, tokens: int) -> list[Batch]:
    """Batches of up to `size` features of similar length and `tokens` padded tokens."""
    plan, pad_id = plan_batches(features, size=size, tokens=tokens), pad_id_of(model)
    return [make_batch([features[index] for index in indices], pad_id=pad_id) for indices in plan]


def supply(batches: Sequence[Batch], *, seed: int) -> Iterator[Batch]:
    """All batches in random order, for ever anew."""
    rng = random.Random(seed)
    while True:
        yield from rng.sample(batches, len(batches))


def rate_scale(step: int, steps: int, warmup: float) -> float:
    """Rise linearly over the share `warmup` of the steps, then fall linearly towards zero."""
    rising = max(1, round(warmup * steps))
    return min((step + 1) / rising, (steps - step) / max(1, steps - rising))


def pad_id_of(model: Any) -> int:
    """The token that texts are padded with."""
    return int(model.config.pad_token_id or 0)


def score_of(model: Any, encoded: Encoded, head: Head) -> Score:
    """What the model scores on its head's metric."""
    import torch

    def session(feed: Feed) -> Feed:
        with torch.no_grad():
            outputs = model(**{name: torch.from_numpy(array) for name, array in feed.items()})
        return {name: outputs[name].numpy() for name in head.outputs}

    return head.score(encoded, run_split(session, head, encoded, pad_id=pad_id_of(model)).answers)


def value_of(score: Score, reference: Score) -> float:
    """The metric; where there is no gold, the mean cosine to the reference's vectors."""
    statistics = score.statistics
    if score.metric == COSINE_TO_REFERENCE:
        statistics = (statistics * reference.statistics).sum(axis=1, keepdims=True)
    return float(score.aggregate(statistics))
