"""Token classification: a class for every word; entities where the classes are tags of them.

The first sub-token of a word decides. A word that truncation cut off, or that the tokenizer drops,
counts as predicted "O", or as a miss where there is no "O". A word with the tag -100 is none: it is
neither scored nor trained on, as in transformers' examples, and its neighbours are beside each
other. Entities are counted as seqeval (Nakayama, 2018) does by default, after conlleval, in any of
its schemes; classes that are no entities, such as parts of speech, are scored by the accuracy of
words. Sentences without words are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from optimize.errors import DataError, shown
from optimize.heads import _encoding, _metrics
from optimize.heads._metrics import Array
from optimize.heads._tags import OUTSIDE, Scheme, entities, in_words, scheme_of
from optimize.interfaces import ClassCounts, Encoded, Feature, Feed, Head, Row, Said, Score, Text

if TYPE_CHECKING:
    from tokenizers import Encoding

NAME = "token-classification"
COMMONEST = 8  # a rarer tag, given to every word, scores worse
NO_ENTITIES = "none"
"""What a sentence without an entity is said to have."""
IGNORED = -100
"""The tag of a word that is not to be judged."""


def faults(rows: Sequence[Row], config: Mapping[str, Any]) -> dict[int, str]:
    """Say what is wrong with rows: each has words and as many tags."""
    classes = len(_encoding.class_names(config))
    return _encoding.faults(rows, lambda row: _words_and_tags(row, classes))


def scoring(rows: Sequence[Row], config: Mapping[str, Any]) -> str:
    """Say which scheme the classes are of; between two that have the same classes, the rows decide."""
    scheme = scheme_of(_classes(rows, config))
    tags = scheme.tags if scheme else ()
    return in_words(scheme, ([tags[tag] for tag in row["tags"] if tag != IGNORED] for row in rows))


def _classes(rows: Sequence[Row], config: Mapping[str, Any]) -> tuple[str, ...]:
    """The classes' names: those that the data set gives where the checkpoint's are placeholders."""
    given = rows[0].get("classes") if rows else None
    return tuple(given) if given else _encoding.class_names(config)


def encode(rows: Sequence[Row], text: Text) -> Encoded:
    """Tokenize lists of words; `extra` says which token decides which word."""
    _encoding.require_fit(NAME, rows, faults(rows, text.config))
    classes = _classes(rows, text.config)
    sentences, gold, judged, found = [], [], [], []
    for row in rows:
        words, tags = _words_and_tags(row, len(classes))
        kept = tags != IGNORED
        if kept.any():
            sentences.append(words)
            gold.append(tags[kept])
            judged.append(kept)
            found.append(row)
    if not sentences:
        raise DataError(f"{NAME}: no row has words that are tagged; give rows with non-empty lists of tokens")
    tokens = _encoding.tokenize(text, sentences, words=True)
    features = tuple(_feature(item.encoding, i, judged[i]) for i, item in enumerate(tokens))
    return Encoded(features, tuple(gold), _encoding.count_cut(tokens), classes=classes, rows=tuple(found))


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
    ids = [tag if _is_ignored(tag) else _encoding.class_id(tag, classes) for tag in tags]
    return list(words), np.array(ids, dtype=np.int64)


def _feature(encoding: Encoding, example: int, judged: Array) -> Feature:
    """Of the words that are judged: their numbers among such, and the token that decides each."""
    numbers = np.cumsum(judged) - 1
    first: dict[int, int] = {}
    for position, word in enumerate(encoding.word_ids):
        if word is not None and judged[word]:
            first.setdefault(int(numbers[word]), position)
    extra = {
        "words": np.fromiter(first.keys(), np.int64, len(first)),
        "positions": np.fromiter(first.values(), np.int64, len(first)),
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
    """Score class ids by the F1 of entities, or by accuracy where classes are no entities."""
    return _score(_whole(encoded, answers), encoded.gold, encoded.classes)


def _whole(encoded: Encoded, answers: Sequence[Array]) -> list[Array]:
    """The class ids of all words of each example, those that were cut off among them."""
    outside = next((index for index, name in enumerate(encoded.classes) if name.upper() == OUTSIDE), _metrics.NO_CLASS)
    predicted = [np.full(len(tags), outside, dtype=np.int64) for tags in encoded.gold]
    for feature, answer in zip(encoded.features, answers, strict=True):
        predicted[feature.example][feature.extra["words"]] = answer
    return predicted


def _score(predicted: Sequence[Array], gold: Sequence[Array], classes: tuple[str, ...]) -> Score:
    words = np.empty((len(gold), 2))
    for row, ours, tags in zip(words, predicted, gold, strict=True):
        row[:] = (ours == tags).sum(), len(tags)
    right = words[:, 0] == words[:, 1]
    decisions = np.concatenate(predicted)
    scheme = scheme_of(classes)
    if scheme is None:
        counts = np.stack([_word_counts(*pair, len(classes)) for pair in zip(predicted, gold, strict=True)])
        by_class = ClassCounts(classes, counts)
        return Score("accuracy", words, _metrics.share, decisions, right, classes=by_class)
    counts = np.stack([_entity_counts(*pair, scheme) for pair in zip(predicted, gold, strict=True)])
    statistics = counts.sum(axis=1).astype(np.float64)
    true, claimed, actual = statistics.sum(axis=0)
    others = {
        "precision": _metrics.ratio(true, claimed),
        "recall": _metrics.ratio(true, actual),
        "token_accuracy": _metrics.share(words),
    }
    by_type = ClassCounts(scheme.types, counts)
    return Score("f1", statistics, _metrics.micro_f1, decisions, right, others=others, classes=by_type)


def _word_counts(predicted: Array, gold: Array, classes: int) -> Array:
    """True positives, predicted and gold words of each class, [C, 3]."""
    sides = gold[predicted == gold], predicted[predicted != _metrics.NO_CLASS], gold
    return np.stack([np.bincount(side, minlength=classes) for side in sides], axis=1).astype(np.int32)


def _entity_counts(predicted: Array, gold: Array, scheme: Scheme) -> Array:
    """True positives, predicted and gold entities of each type, [types, 3]."""
    tags = np.array([*scheme.tags, OUTSIDE])  # NO_CLASS is the last one's index, and begins no entity
    places = {name: place for place, name in enumerate(scheme.types)}
    counts = np.zeros((len(places), 3), dtype=np.int32)
    claimed, actual = entities(tags[predicted].tolist()), entities(tags[gold].tolist())
    for column, side in enumerate((claimed & actual, claimed, actual)):
        for name, _, _ in side:
            counts[places[name], column] += 1
    return counts


def say(encoded: Encoded, answers: Sequence[Array], sure: Sequence[Array]) -> list[Said]:
    """Return the entities with their types, or each word's class; the least sure word says how sure the model is."""
    scheme, found = scheme_of(encoded.classes), []
    for index, (ours, gold) in enumerate(zip(_whole(encoded, answers), encoded.gold, strict=True)):
        words = _judged_words(encoded.rows[index])
        right = (ours == gold)[encoded.features[index].extra["words"]]
        decisions = tuple(zip(sure[index].tolist(), right.tolist(), strict=True))
        said = [_in_words(words, side.tolist(), encoded.classes, scheme) for side in (ours, gold)]
        found.append(Said(said[0], said[1], float(sure[index].min(initial=1.0)), decisions))
    return found


def _judged_words(row: Row) -> list[str]:
    return [word for word, tag in zip(row["tokens"], row["tags"], strict=True) if not _is_ignored(tag)]


def _is_ignored(tag: object) -> bool:
    return isinstance(tag, int) and tag == IGNORED


def _in_words(words: Sequence[str], ids: Sequence[int], classes: Sequence[str], scheme: Scheme | None) -> str:
    """`Ada (PER), Lisbon (LOC)`."""
    if scheme is None:
        return ", ".join(f"{word} ({_metrics.name_of(each, classes)})" for word, each in zip(words, ids, strict=True))
    tags = [OUTSIDE if each == _metrics.NO_CLASS else scheme.tags[each] for each in ids]
    spans = sorted(entities(tags), key=lambda span: span[1:])
    return ", ".join(f"{' '.join(words[start:stop])} ({name})" for name, start, stop in spans) or NO_ENTITIES


def constants(encoded: Encoded) -> Iterable[Sequence[Array]]:
    """Return each of the commonest tags, for every word."""
    counts = np.bincount(np.concatenate(encoded.gold))
    for tag in np.argsort(-counts, kind="stable")[:COMMONEST]:
        yield [np.full(len(feature.extra["words"]), tag) for feature in encoded.features]


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
    aggregates={"f1": _metrics.micro_f1, "accuracy": _metrics.share},
    say=say,
    labels="tags",
    scoring=scoring,
    example=("Ada lives in Lisbon.",),
)
