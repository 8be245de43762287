"""What is fed to the engines when latency is measured: one text size, or lengths as they occur."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from optimize.evaluate.predict import choices, collate
from optimize.interfaces import Feature, Feed
from optimize.measure.shapes import parse_shape

DATA_FEATURES = 32
SPECIAL_TOKENS = 1000
NO_DATA = "no data to take lengths from"


@dataclass(frozen=True)
class Workload:
    """The data's features and the model's limits; all feeds follow from it and the seed.

    `choices` is how many choices a row of multiple choice has where there are no features to
    tell; 0 for every other head.
    """

    features: Sequence[Feature]
    vocab_size: int
    max_positions: int
    pad_id: int
    seed: int
    choices: int = 0


def why_not(shape: str, workload: Workload) -> str | None:
    """Why a shape cannot be measured, or None."""
    batch, tokens = parse_shape(shape)
    if tokens is None:
        count = len(_alike(workload))
        return None if count >= batch else f"only {count} texts to take lengths from" if count else NO_DATA
    if tokens > workload.max_positions:
        return f"longer than the model's {workload.max_positions} positions"
    return None


def feeds_for(shape: str, workload: Workload) -> list[Feed]:
    """Feeds of a shape: one of random tokens for BxT; for `data` up to 32 real features, in batches of mixed length."""
    import numpy as np

    batch, tokens = parse_shape(shape)
    if tokens is None:
        chosen = _by_length(workload, max(DATA_FEATURES // batch, 1) * batch)
        if batch > 1:
            # Sorted as they come, every batch would be of one length, which traffic is not.
            random.Random(workload.seed).shuffle(chosen)
        starts = range(0, len(chosen) - batch + 1, batch)
        return [collate(chosen[start : start + batch], pad_id=workload.pad_id) for start in starts]
    count = choices(workload.features[0]) if workload.features else workload.choices
    dims = (batch, count, tokens) if count else (batch, tokens)
    # Ids below 1000 are special or unused in BERT's vocabulary; a tiny one has fewer of them.
    low = min(SPECIAL_TOKENS, workload.vocab_size // 2)
    ids = np.random.default_rng(workload.seed).integers(low, workload.vocab_size, dims, dtype=np.int64)
    return [{"input_ids": ids, "attention_mask": np.ones(dims, dtype=np.int64)}]


def _alike(workload: Workload) -> list[Feature]:
    """The features that can be batched with the first: those with as many choices."""
    return [feature for feature in workload.features if choices(feature) == choices(workload.features[0])]


def _by_length(workload: Workload, most: int) -> list[Feature]:
    """Features at evenly spread quantiles of length."""
    order = sorted(_alike(workload), key=lambda feature: feature.tokens)
    count = min(most, len(order))
    # The middle of each of `count` equal parts: (place + 1/2) / count of the way, in whole numbers.
    return [order[(2 * place + 1) * len(order) // (2 * count)] for place in range(count)]
