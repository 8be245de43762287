"""Token classification: a class for every word; entities where the classes are IOB tags.

The first sub-token of a word decides. A word that truncation cut off, or that the tokenizer drops,
counts as predicted "O", or as a miss where there is no "O". Entities are counted as seqeval
(Nakayama, 2018) does by default, after conlleval; classes that are not IOB tags, such as parts of
speech, are scored by the accuracy of words. Sentences without words are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from optimize.errors import DataError, shown
from optimize.heads import _encoding, _metrics
from optimize.heads._metrics import Array
from optimize.interfaces import Encoded, Feature, Feed, Head, Row, Score, Text

if TYPE_CHECKING:
    from tokenizers import Encoding

NAME = "token-classification"
COMMONEST = 8  # a rarer tag, given to every word, scores worse
TAG = re.compile(r"O|[BIES]-.+")


def faults(rows: Sequence[Row], config: Mapping[str, Any]) -> dict[int, str]:
    """Say what is wrong with rows: each has words and as many tags."""
    classes = len(_encoding.class_names(config))
    return _encoding.faults(rows, lambda row: _words_and_tags(row, classes))


def encode(rows: Sequence[Row], text: Text) -> Encoded:
    """Tokenize lists of words; `extra` says which token decides which word."""
    _encoding.require_fit(NAME, rows, faults(rows, text.config))
    classes = _encoding.class_names(text.config)
    sentences, gold = [], []
    for row in rows:
        words, tags = _words_and_tags(row, len(classes))
        if words:
            sentences.append(words)
            gold.append(tags)
    if not sentences:
        raise DataError(f"{NAME}: no row has words; give rows with non-empty lists of tokens")
    tokens = _encoding.tokenize(text, sentences, words=True)
    features = tuple(_feature(item.encoding, i, classes) for i, item in enumerate(tokens))
    return Encoded(features, tuple(gold), _encoding.count_cut(tokens))


def _words_and_tags(row: Row, classes: int) -> tuple[list[str], Array]:
    words, tags = row.get("tokens"), row.get("tags")
    if words is None or tags is None or not _encoding.is_list(words) or not _encoding.is_list(tags):
        raise _encoding.unfit("has no list of tokens or of tags", "give a tag for each token")
    if len(words) != len(tags):
        raise _encoding.unfit(f"has {len(words)} tokens and {len(tags)} tags", "give a tag for each token")
    for word in words:
        if not isinstance(word, str):
            raise _encoding.unfit(f"has {shown(word)} among its tokens", "give text")
    _encoding.require_unicode(words, "a token")
    ids = [_encoding.class_id(tag, classes) for tag in tags]
    return list(words), np.array(ids, dtype=np.int64)


def _feature(encoding: Encoding, example: int, classes: tuple[str, ...]) -> Feature:
    first: dict[int, int] = {}
    for position, word in enumerate(encoding.word_ids):
        if word is not None:
            first.setdefault(word, position)
    extra = {
        "words": np.fromiter(first.keys(), np.int64, len(first)),
        "positions": np.fromiter(first.values(), np.int64, len(first)),
        "classes": classes,
    }
    return _encoding.feature(encoding.ids, example, extra)


def read(feature: Feature, outputs: Feed) -> Array:
    """Return the logits of the words that are left, [words, C]."""
    rows: Array = outputs["logits"][feature.extra["positions"]]
    return rows


def decide(feature: Feature, rows: Array) -> Array:
    """Return the class ids of the words that are left."""
    del feature
    return _metrics.decided(rows)


def score(encoded: Encoded, answers: Sequence[Array]) -> Score:
    """Score class ids by the F1 of entities, or by accuracy where classes are not IOB tags."""
    classes: tuple[str, ...] = encoded.features[0].extra["classes"]
    outside = classes.index("O") if "O" in classes else _metrics.NO_CLASS
    predicted = [np.full(len(tags), outside, dtype=np.int64) for tags in encoded.gold]
    for feature, answer in zip(encoded.features, answers, strict=True):
        predicted[feature.example][feature.extra["words"]] = answer
    return _score(predicted, encoded.gold, classes)


def _score(predicted: Sequence[Array], gold: Sequence[Array], classes: tuple[str, ...]) -> Score:
    words = np.empty((len(gold), 2))
    for row, ours, tags in zip(words, predicted, gold, strict=True):
        row[:] = (ours == tags).sum(), len(tags)
    right = words[:, 0] == words[:, 1]
    decisions = np.concatenate(predicted)
    if not _are_entity_tags(classes):
        return Score("accuracy", words, _metrics.share, decisions, right)
    counts = np.array([_counts(*pair, classes) for pair in zip(predicted, gold, strict=True)], np.float64)
    true, claimed, actual = counts.sum(axis=0)
    others = {
        "precision": _metrics.ratio(true, claimed),
        "recall": _metrics.ratio(true, actual),
        "token_accuracy": _metrics.share(words),
    }
    return Score("f1", counts, _metrics.micro_f1, decisions, right, others=others)


def _are_entity_tags(classes: tuple[str, ...]) -> bool:
    return all(TAG.fullmatch(name) for name in classes) and set(classes) != {"O"}


def _counts(predicted: Array, gold: Array, classes: tuple[str, ...]) -> tuple[int, int, int]:
    names = np.array([*classes, "O"])  # NO_CLASS is the last one's index, and begins no entity
    claimed, actual = entities(names[predicted]), entities(names[gold])
    return len(claimed & actual), len(claimed), len(actual)


def constants(encoded: Encoded) -> Iterable[Sequence[Array]]:
    """Return each of the commonest tags, for every word."""
    counts = np.bincount(np.concatenate(encoded.gold))
    for tag in np.argsort(-counts, kind="stable")[:COMMONEST]:
        yield [np.full(len(feature.extra["words"]), tag) for feature in encoded.features]


def entities(tags: Iterable[str]) -> set[tuple[str, int, int]]:
    """Return (type, first word, word after the last) of each entity in IOB1, IOB2 or IOBES tags.

    An entity goes on with I or E of the same type after B or I; anything else but O begins one.
    """
    found = set()
    start, last = 0, "O"
    for index, tag in enumerate([*tags, "O"]):  # the last "O" ends an entity that reaches to the end
        if last[0] in "BI" and tag[0] in "IE" and last[2:] == tag[2:]:
            last = tag
            continue
        if last != "O":
            found.add((last[2:], start, index))
        start, last = index, tag
    return found


HEAD = Head(
    name=NAME,
    auto_class="AutoModelForTokenClassification",
    outputs=("logits",),
    reads="all tokens",
    rows_are="logits",
    dataset=(
        {
            "tokens": ("tokens", "words"),
            "tags": ("tags", "ner_tags", "labels", "ner", "pos_tags", "upos", "chunk_tags"),
        },
    ),
    metric="f1",
    weights=("classifier.weight",),
    faults=faults,
    encode=encode,
    read=read,
    decide=decide,
    score=score,
    constants=constants,
    labels="tags",
    usage='"Ada lives in Lisbon."',
)
