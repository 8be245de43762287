"""What is fed to the engines when latency is measured: one text size, or lengths as they occur."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from optimize.evaluate.predict import choices, collate
from optimize.interfaces import Feature, Feed
from optimize.measure.shapes import parse_shape

DATA_FEATURES = 32
SPECIAL_TOKENS = 1000


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
    size = parse_shape(shape)
    if size is None:
        return None if workload.features else "no data to take lengths from"
    if size[1] > workload.max_positions:
        return f"longer than the model's {workload.max_positions} positions"
    return None


def feeds_for(shape: str, workload: Workload) -> list[Feed]:
    """Feeds of a shape: one of random tokens for BxT, up to 32 real features for `data`."""
    import numpy as np

    size = parse_shape(shape)
    if size is None:
        return [collate([feature], pad_id=workload.pad_id) for feature in _by_length(workload)]
    batch, tokens = size
    count = choices(workload.features[0]) if workload.features else workload.choices
    dims = (batch, count, tokens) if count else (batch, tokens)
    # Ids below 1000 are special or unused in BERT's vocabulary; a tiny one has fewer of them.
    low = min(SPECIAL_TOKENS, workload.vocab_size // 2)
    ids = np.random.default_rng(workload.seed).integers(low, workload.vocab_size, dims, dtype=np.int64)
    return [{"input_ids": ids, "attention_mask": np.ones(dims, dtype=np.int64)}]


def _by_length(workload: Workload) -> list[Feature]:
    """Features at evenly spread quantiles of length."""
    order = sorted(workload.features, key=lambda feature: feature.tokens)
    count = min(DATA_FEATURES, len(order))
    return [order[(2 * place + 1) * len(order) // (2 * count)] for place in range(count)]
