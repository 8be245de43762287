"""Feature extraction: a vector for a text, the mean of its tokens' last hidden states.

With scored pairs (STS), the metric is the rank correlation of cosine and score (Reimers and
Gurevych, 2019). A sentence encoder answers with its own embedding instead, which its modules make of the hidden
states. Without scores there is no right answer, only the reference's: the score is then
called "cosine_to_reference", its statistics are unit vectors [N, D], and whoever has both models'
vectors calls `aggregate` on the row sums of their product, [N, 1]. Each text is then an example.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from optimize.heads import _encoding, _metrics
from optimize.heads._metrics import Array
from optimize.interfaces import Encoded, Feature, Feed, Head, Row, Said, Score, Text
from optimize.request import Reads
from optimize.sentences.configs import OUTPUT
from optimize.sentences.layout import SentenceEncoder

NAME = "feature-extraction"
SCORE = ("score", "similarity_score", "relatedness_score", "label")


def faults(rows: Sequence[Row], config: Mapping[str, Any]) -> dict[int, str]:
    """Say what is wrong with rows: all or none have a second text, and if they have, a score."""
    del config
    paired = _encoding.any_has(rows, "text_pair")
    scored = paired and _encoding.any_has(rows, "score")

    def parse(row: Row) -> None:
        _encoding.string_in(row, "text")
        if paired:
            _encoding.string_in(row, "text_pair")
        if scored:
            _encoding.number_in(row, "score")

    return _encoding.faults(rows, parse)


def encode(rows: Sequence[Row], text: Text) -> Encoded:
    """Tokenize texts one by one; a scored pair is two features of one example."""
    _encoding.require_fit(NAME, rows, faults(rows, text.config))
    texts = [text.prompt + each for each in _texts(rows)]
    scored = _encoding.any_has(rows, "text_pair") and _encoding.any_has(rows, "score")
    gold = tuple(_encoding.number_in(row, "score") for row in rows) if scored else (None,) * len(texts)
    features, cut = [], set()
    for i, tokens in enumerate(_encoding.tokenize(text, texts)):
        example = i // 2 if scored else i
        features.append(_encoding.feature(tokens.encoding.ids, example))
        if tokens.cut:
            cut.add(example)
    kept = tuple(rows) if scored else tuple({"text": each} for each in texts)
    return Encoded(tuple(features), gold, len(cut), rows=kept)


def _texts(rows: Sequence[Row]) -> list[str]:
    """Return all texts, those of a pair one after the other."""
    roles = ("text", "text_pair") if _encoding.any_has(rows, "text_pair") else ("text",)
    return [row[role] for row in rows for role in roles]


def read(feature: Feature, outputs: Feed) -> Array:
    """Return the mean of the hidden states of all tokens, [1, D]."""
    del feature
    hidden = outputs["last_hidden_state"].astype(np.float32)
    pooled: Array = hidden.mean(axis=0, keepdims=True)
    return pooled


def read_embedding(feature: Feature, outputs: Feed) -> Array:
    """Return a sentence encoder's own vector, [1, E]."""
    del feature
    vector: Array = outputs[OUTPUT].astype(np.float32)[None]
    return vector


def decide(feature: Feature, rows: Array) -> Array:
    """Return the vector, [D]."""
    del feature
    vector: Array = rows[0]
    return vector


def score(encoded: Encoded, answers: Sequence[Array]) -> Score:
    """Score vectors by the cosines of pairs, or hand them over to be compared."""
    vectors = _unit(np.stack(answers).astype(np.float64))
    if encoded.gold[0] is None:
        return Score(
            metric="cosine_to_reference",
            statistics=vectors,
            aggregate=_metrics.mean_of_first,
            # A vector decides nothing alone: agreement asks in which order neighbours' cosines are.
            decisions=(vectors[:-1] * vectors[1:]).sum(axis=1),
            ordinal=True,
        )
    cosines = (vectors[0::2] * vectors[1::2]).sum(axis=1)
    statistics = np.stack([cosines, np.array(encoded.gold, dtype=np.float64)], axis=1)
    return Score(
        metric="spearman",
        statistics=statistics,
        aggregate=_metrics.spearman,
        decisions=cosines,
        ordinal=True,
        others={"pearson": _metrics.pearson(statistics)},
    )


def say(encoded: Encoded, answers: Sequence[Array], sure: Sequence[Array]) -> list[Said]:
    """Return the cosines of scored pairs; a vector alone says nothing in words."""
    del sure
    if encoded.gold[0] is None:
        return []
    cosines = score(encoded, answers).decisions
    return [Said(f"{ours:.4f}", f"{right:.4g}") for ours, right in zip(cosines, encoded.gold, strict=True)]


def constants(encoded: Encoded) -> Iterable[Sequence[Array]]:
    """Return one vector for all; without scores, the reference alone can say which would be the best."""
    if encoded.gold[0] is not None:
        yield [np.ones(1)] * len(encoded.features)


def _unit(vectors: Array) -> Array:
    """Scale rows to length one; rows of zeros or NaN become zeros."""
    vectors = np.where(np.isfinite(vectors).all(axis=1, keepdims=True), vectors, 0.0)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Array = vectors / np.where(norms == 0, 1.0, norms)
    return scaled


HEAD = Head(
    name=NAME,
    auto_class="AutoModel",
    outputs=("last_hidden_state",),
    reads="all tokens",
    rows_are="vectors",
    dataset=(
        {"text": ("sentence1",), "text_pair": ("sentence2",), "score?": SCORE},
        {"text": ("text1",), "text_pair": ("text2",), "score?": SCORE},
        {"text": ("sentence_A",), "text_pair": ("sentence_B",), "score?": SCORE},
        {"text": ("text", "sentence", "content", "review")},
    ),
    metric="spearman",
    weights=(),
    faults=faults,
    encode=encode,
    read=read,
    decide=decide,
    score=score,
    constants=constants,
    aggregates={"spearman": _metrics.spearman},
    say=say,
    example=("A sentence.",),
)


def sentence_head(encoder: SentenceEncoder) -> Head:
    """Return the head as a sentence encoder has it: what is compared is the embedding behind all of its modules."""
    reads: Reads = "first token" if encoder.reads_first_token else "pooled tokens"
    return replace(HEAD, outputs=(OUTPUT,), reads=reads, read=read_embedding)
