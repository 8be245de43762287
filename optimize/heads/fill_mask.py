"""Fill-mask: guess the words that were masked, 15 % of each text.

Whole words are masked, every sub-token by [MASK], after the rate of Devlin et al. (2019) without
its random and kept tokens, which serve training. The choice depends on the text and nothing else,
so every model and every run is asked the same. Unknown words are never asked for, and a text that
has no word to ask for is left out.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from optimize.errors import DataError
from optimize.heads import _encoding, _metrics
from optimize.heads._metrics import Array
from optimize.interfaces import Encoded, Feature, Feed, Head, Row, Said, Score, Text

if TYPE_CHECKING:
    from tokenizers import Encoding

NAME = "fill-mask"
MASKED_SHARE = 0.15
WORST_LOSS = 100.0  # of a token in nats; keeps a model that answers NaN out of the average


def faults(rows: Sequence[Row], config: Mapping[str, Any]) -> dict[int, str]:
    """Say what is wrong with rows: each has a text."""
    del config
    return _encoding.faults(rows, lambda row: _encoding.string_in(row, "text"))


def encode(rows: Sequence[Row], text: Text) -> Encoded:
    """Tokenize and mask; `extra` holds the masked positions and their original ids."""
    _encoding.require_fit(NAME, rows, faults(rows, text.config))
    if text.tokenizer.mask_token_id is None:
        raise DataError(f"{NAME}: the tokenizer has no mask token; use the one of the checkpoint")
    features: list[Feature] = []
    gold, kept, truncated = [], [], 0
    for row, tokens in zip(rows, _encoding.tokenize(text, [row["text"] for row in rows]), strict=True):
        positions = _masked_positions(tokens.encoding, set(text.tokenizer.all_special_ids))
        if len(positions):
            features.append(_feature(tokens.encoding.ids, len(features), positions, text))
            gold.append(features[-1].extra["gold"])
            kept.append(row)
            truncated += tokens.cut
    if not features:
        raise DataError(f"{NAME}: no row has a word to mask; give rows with text")
    words = tuple(text.tokenizer.convert_ids_to_tokens(range(len(text.tokenizer))))
    return Encoded(tuple(features), tuple(gold), truncated, classes=words, rows=tuple(kept))


def _masked_positions(encoding: Encoding, special: set[int]) -> Array:
    """Choose words by the order of their hashes: the same on every machine and version."""
    words: dict[int, list[int]] = defaultdict(list)
    unknown: set[int] = set()
    for position, word in enumerate(encoding.word_ids):
        if word is not None:
            words[word].append(position)
            if encoding.ids[position] in special:
                unknown.add(word)  # [UNK] inside a word: the right answer would be a piece that the model never gives
    content = hashlib.sha256(np.asarray(encoding.ids, dtype="<i8").tobytes()).hexdigest()
    # A generator of random numbers would tie the choice to a version of numpy; a hash of text and word does not.
    known = sorted(words.keys() - unknown, key=lambda word: hashlib.sha256(f"{content}:{word}".encode()).digest())
    positions: list[int] = []
    for word in known[: max(1, round(MASKED_SHARE * len(known)))]:
        positions += words[word]
    return np.array(sorted(positions), dtype=np.int64)


def _feature(ids: Sequence[int], example: int, positions: Array, text: Text) -> Feature:
    masked = np.array(ids, dtype=np.int64)
    gold = masked[positions]
    masked[positions] = text.tokenizer.mask_token_id
    return _encoding.feature(masked.tolist(), example, {"positions": positions, "gold": gold})


def read(feature: Feature, outputs: Feed) -> Array:
    """Return the logits at the masked positions, [masked, V]."""
    rows: Array = outputs["logits"][feature.extra["positions"]]
    return rows


def decide(feature: Feature, rows: Array) -> tuple[Array, Array]:
    """Return the guessed ids and the negative log-likelihoods of the right ones, in nats."""
    logits = rows.astype(np.float64)
    # -log softmax(logits)[gold] = logsumexp(logits) - logits[gold], with the maximum taken out of the exponentials.
    top = logits.max(axis=1)
    with np.errstate(invalid="ignore"):
        logsumexp = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
        loss = logsumexp - logits[np.arange(len(logits)), feature.extra["gold"]]
    loss = np.nan_to_num(loss, nan=WORST_LOSS, posinf=WORST_LOSS)
    return _metrics.decided(logits), np.minimum(loss, WORST_LOSS)


def score(encoded: Encoded, answers: Sequence[tuple[Array, Array]]) -> Score:
    """Score guesses by the share that is right, over all masked tokens."""
    statistics = np.empty((len(answers), 3))
    for row, (ids, losses), gold in zip(statistics, answers, encoded.gold, strict=True):
        row[:] = (ids == gold).sum(), len(gold), losses.sum()
    loss = _metrics.share(statistics[:, [2, 1]])
    return Score(
        metric="top1_accuracy",
        statistics=statistics,
        aggregate=_metrics.share,
        decisions=np.concatenate([ids for ids, _ in answers]),
        others={"loss": loss, "perplexity": math.exp(loss)},
    )


def say(encoded: Encoded, answers: Sequence[tuple[Array, Array]], sure: Sequence[Array]) -> list[Said]:
    """Return the guessed word pieces in the order of the text; the least sure one says how sure the model is."""
    found = []
    for (ids, _), gold, tops in zip(answers, encoded.gold, sure, strict=True):
        decisions = tuple(zip(tops.tolist(), (ids == gold).tolist(), strict=True))
        words = [" ".join(_metrics.name_of(each, encoded.classes) for each in side.tolist()) for side in (ids, gold)]
        found.append(Said(words[0], words[1], float(tops.min()), decisions))
    return found


def constants(encoded: Encoded) -> Iterable[Sequence[tuple[Array, Array]]]:
    """Return the token that is masked most often, for every position."""
    commonest = np.bincount(np.concatenate(encoded.gold)).argmax()
    yield [(np.full(len(gold), commonest), np.zeros(len(gold))) for gold in encoded.gold]


HEAD = Head(
    name=NAME,
    auto_class="AutoModelForMaskedLM",
    outputs=("logits",),
    reads="all tokens",
    rows_are="logits",
    dataset=({"text": ("text", "sentence", "content")},),
    metric="top1_accuracy",
    weights=("vocab_transform.weight", "vocab_layer_norm.weight", "vocab_projector.bias"),
    faults=faults,
    encode=encode,
    read=read,
    decide=decide,
    score=score,
    constants=constants,
    aggregates={"top1_accuracy": _metrics.share},
    say=say,
    answers_in_words=True,
    activations=1,
    example=("Paris is the capital of [MASK].",),
)
