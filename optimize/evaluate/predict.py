"""Run a session over features: batch, pad, cut the padding off again, keep what is compact.

Batches hold up to 8 features of similar length. Sorting by length keeps padding, and with it the
work, low; the order depends on the features alone, so a reference and a candidate see identical
batches, which matters because the outputs of dynamic INT8 depend on batch mates. A batch's output
is bounded, since masked-LM logits are [B, T, V]: at 512 tokens one text alone is 15 million floats.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from optimize.evaluate.memory import release_free_memory
from optimize.interfaces import Array, Encoded, Feature, Feed, Head, Progress, Session

MAX_BATCH = 8
MAX_BATCH_TOKENS = 4096
RELEASE_EVERY = 16
MAX_OUTPUT_FLOATS = 2**23
KEEP_VALUES = 16_000_000


@dataclass(frozen=True)
class Outputs:
    """`answers[i]` is what the head decided for feature i; `rows` are those of the first features."""

    answers: list[Any]
    rows: list[Array]


def collate(
    features: Sequence[Feature],
    *,
    pad_id: int,
    tokens: int | None = None,
    side: Literal["right", "left"] = "right",
) -> Feed:
    """Stack features and pad their last axis to the longest one, or to `tokens`.

    `input_ids` are padded with `pad_id`, everything else with 0. Features of multiple choice are
    [choices, T]; they must have equally many choices.
    """
    import numpy as np

    longest = max(feature.tokens for feature in features)
    width = longest if tokens is None else tokens
    if width < longest:
        raise ValueError(f"cannot pad {longest} tokens to {width}")

    def padded(array: Array, fill: int) -> Array:
        missing = width - array.shape[-1]
        if not missing:
            return array
        ends = (0, missing) if side == "right" else (missing, 0)
        return np.pad(array, [(0, 0)] * (array.ndim - 1) + [ends], constant_values=fill)

    feed: Feed = {}
    for name in features[0].inputs:
        fill = pad_id if name == "input_ids" else 0
        feed[name] = np.stack([padded(feature.inputs[name], fill) for feature in features])
    return feed


def own_outputs(outputs: Feed, index: int, feature: Feature, *, head: Head) -> Feed:
    """Outputs of one feature of a right-padded batch: no batch axis, no padding, float32.

    Which outputs have a token axis follows from what the head reads, not from sizes: a batch of
    three labels and three tokens would fool any guess.
    """
    end = feature.tokens if head.reads == "all tokens" else None
    return {name: array[index][:end].astype("float32", copy=False) for name, array in outputs.items()}


def plan_batches(features: Sequence[Feature], *, size: int = MAX_BATCH, tokens: int) -> list[list[int]]:
    """Indices in batches of up to `size` features and `tokens` padded tokens, choices included, shortest first."""
    order = sorted(range(len(features)), key=lambda i: (choices(features[i]), features[i].tokens, i))
    batches: list[list[int]] = []
    for index in order:
        feature, batch = features[index], batches[-1] if batches else []
        fits = len(batch) < size and (len(batch) + 1) * feature.all_tokens <= tokens
        if batch and fits and choices(features[batch[0]]) == choices(feature):
            batch.append(index)
        else:
            batches.append([index])
    return batches


def choices(feature: Feature) -> int:
    """How many choices a feature of multiple choice has; 0 where there are none."""
    ids = feature.inputs["input_ids"]
    return int(ids.shape[0]) if ids.ndim == 2 else 0


def token_limit(session: Session, head: Head, features: Sequence[Feature], *, pad_id: int) -> int:
    """Padded tokens a batch may have: `MAX_BATCH_TOKENS`, and outputs within `MAX_OUTPUT_FLOATS`.

    How much output a token gives is found by one short run.
    """
    if head.reads == "first token" or not features:
        return MAX_BATCH_TOKENS
    probe = min(features, key=lambda feature: feature.tokens)
    outputs = session(collate([probe], pad_id=pad_id))
    floats = sum(array.size for array in outputs.values())
    return min(MAX_BATCH_TOKENS, MAX_OUTPUT_FLOATS * probe.tokens // floats)


def predict(
    session: Session,
    head: Head,
    features: Sequence[Feature],
    *,
    pad_id: int,
    progress: Progress | None = None,
) -> Iterator[tuple[int, Array]]:
    """Yield (index, rows) for every feature, as batches finish; rows are the head's `read`."""
    done = 0
    limit = token_limit(session, head, features, pad_id=pad_id)
    for number, batch in enumerate(plan_batches(features, tokens=limit)):
        if number % RELEASE_EVERY == 0:
            release_free_memory()
        outputs = session(collate([features[index] for index in batch], pad_id=pad_id))
        for place, index in enumerate(batch):
            yield index, head.read(features[index], own_outputs(outputs, place, features[index], head=head))
        done += len(batch)
        if progress is not None:
            progress.step("evaluate", done, len(features))


def run_split(
    session: Session,
    head: Head,
    encoded: Encoded,
    *,
    pad_id: int,
    progress: Progress | None = None,
) -> Outputs:
    """Decide every feature, in order; keep the rows of the first ones, `KEEP_VALUES` floats at most.

    Rows arrive by length, not in order: the last feature kept is dropped whenever the budget is
    passed, which leaves exactly the longest prefix that fits.
    """
    features = encoded.features
    answers: list[Any] = [None] * len(features)
    rows: dict[int, Array] = {}
    last_first: list[int] = []  # a heap of negated indices: the last feature that is kept comes out first
    kept, end = 0, len(features)
    for index, found in predict(session, head, features, pad_id=pad_id, progress=progress):
        answers[index] = head.decide(features[index], found)
        if index >= end:
            continue
        rows[index] = found.copy()  # a view would keep its whole batch's outputs alive
        heapq.heappush(last_first, -index)
        kept += found.size
        while kept > KEEP_VALUES:
            end = -heapq.heappop(last_first)
            kept -= rows.pop(end).size
    return Outputs(answers=answers, rows=[rows[index] for index in sorted(rows)])
