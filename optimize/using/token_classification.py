"""Token classification as transformers' pipeline of this name answers: tokens with classes, or entities.

`none` gives every token that has a class of interest; `simple` joins neighbours of one class. The others decide word by
word before that: by the first token, by the mean of all, or by the surest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from optimize.errors import DataError
from optimize.heads import _encoding
from optimize.interfaces import Array, Feed, Params
from optimize.using.asking import Known, Question, Task, softmax, text_of

if TYPE_CHECKING:
    from tokenizers import Encoding

Piece = dict[str, Any]
"""A token: word, scores, start, end, index, and whether it goes on with the word before it."""


class Options(Params):
    """How classes are given."""

    aggregation_strategy: Literal["none", "simple", "first", "average", "max"] = Field(
        default="none",
        description="What is given: tokens by `none`, entities by the others, of tokens by `simple`, of words that "
        "their first token decides by `first`, their mean by `average`, their surest by `max`.",
    )
    ignore_labels: tuple[str, ...] = Field(default=("O",), description="Classes that are left out.")
    stride: int | None = Field(
        default=None,
        ge=0,
        description="Read all of a long text, in windows that share so many tokens. Left out, it is cut.",
    )
    is_split_into_words: bool = Field(default=False, description="The input is a list of words.")
    delimiter: str = Field(default=" ", description="What is between words, where the input is a list of them.")


def ask(given: Any, options: Options, known: Known) -> Question:
    """Ask about a text, or a list of words."""
    text, begins = _joined(given, options)
    words, source = options.is_split_into_words, given if options.is_split_into_words else text
    if options.stride is None:
        windows = [known.tokens.encode(source, limit=known.max_tokens, words=words)]
    else:
        windows = known.tokens.windows(source, limit=known.max_tokens, stride=_stride(options, known), words=words)

    def answer(outputs: Sequence[Feed]) -> Any:
        found: list[dict[str, Any]] = []
        for encoding, each in zip(windows, outputs, strict=True):
            pieces = _pieces(encoding, softmax(each["logits"]), text, begins, known)
            for entity in _entities(pieces, options, known):
                if entity.get("entity", entity.get("entity_group")) not in options.ignore_labels:
                    found.append(entity)
        return _without_overlaps(found) if len(windows) > 1 else found

    return Question(tuple(_encoding.feature(encoding.ids, 0) for encoding in windows), answer)


def _joined(given: Any, options: Options) -> tuple[str, list[int]]:
    """The text of an input, and where in it each word begins if it was given in words."""
    if not options.is_split_into_words:
        return text_of(given), []
    if not isinstance(given, list | tuple):
        raise DataError(f"the input: is {_encoding.kind_of(given)}; give a list of words, or leave out its option")
    begins, place = [], 0
    for word in given:
        begins.append(place)
        place += len(text_of(word, "a word")) + len(options.delimiter)
    return options.delimiter.join(given), begins


def _stride(options: Options, known: Known) -> int:
    room = known.max_tokens - len(known.tokens.whole(""))
    if options.aggregation_strategy == "none":
        raise DataError("stride: joins entities of windows; set aggregation_strategy to simple, first, average or max")
    if options.stride is None or options.stride >= room:
        raise DataError(f"stride: {options.stride} is not below the {room} tokens of a window; give less")
    return options.stride


def _pieces(encoding: Encoding, scores: Array, text: str, begins: Sequence[int], known: Known) -> list[Piece]:
    """The tokens of a window that are no special ones; `scores` are [T, C]."""
    prefix, unknown = known.tokens.prefix, known.tokens.id_of("unk_token")
    word_ids = encoding.word_ids
    found = []
    for index, special in enumerate(encoding.special_tokens_mask):
        if special:
            continue
        start, end = encoding.offsets[index]
        if begins and (number := word_ids[index]) is not None:
            start, end = start + begins[number], end + begins[number]
        word, written = encoding.tokens[index], text[start:end]
        inside = len(word) != len(written) if prefix else start > 0 and " " not in text[start - 1 : start + 1]
        if encoding.ids[index] == unknown:
            word, inside = written, False
        found.append(
            {"word": word, "scores": scores[index], "start": start, "end": end, "index": index, "inside": inside}
        )
    return found


def _entities(pieces: Sequence[Piece], options: Options, known: Known) -> Iterable[dict[str, Any]]:
    """Tokens with their classes, or the entities that they make up."""
    if options.aggregation_strategy in ("none", "simple"):
        decided = [_decided(piece, piece["scores"], known) | {"index": piece["index"]} for piece in pieces]
        if options.aggregation_strategy == "none":
            order = ("entity", "score", "index", "word", "start", "end")
            return [{name: each[name] for name in order} for each in decided]
    else:
        rule = RULES[options.aggregation_strategy]
        decided = [_decided(_as_one(word, known), rule(word), known) for word in _groups(pieces, _goes_on)]
    return [_entity(group, known) for group in _groups(decided, _same_entity)]


def _decided(piece: Piece, scores: Array, known: Known) -> dict[str, Any]:
    """A token or word with its likeliest class."""
    best = int(scores.argmax())
    return {
        "entity": known.classes[best],
        "score": float(scores[best]),
        "word": piece["word"],
        "start": piece["start"],
        "end": piece["end"],
    }


def _as_one(pieces: Sequence[Piece], known: Known) -> Piece:
    """The tokens of a word as one."""
    word = known.tokens.joined([piece["word"] for piece in pieces])
    return {"word": word, "start": pieces[0]["start"], "end": pieces[-1]["end"]}


RULES: dict[str, Callable[[Sequence[Piece]], Array]] = {
    "first": lambda pieces: pieces[0]["scores"],
    "average": lambda pieces: np.mean([piece["scores"] for piece in pieces], axis=0),
    "max": lambda pieces: max(pieces, key=lambda piece: float(piece["scores"].max()))["scores"],
}
"""Scores [C] of a word by those of its tokens."""


def _groups(items: Sequence[Any], joins: Callable[[Any, Any], bool]) -> list[list[Any]]:
    """Neighbours in groups: `joins(before, item)` says whether an item belongs to the one before it."""
    groups = [[items[0]]] if items else []
    for before, item in pairwise(items):
        if joins(before, item):
            groups[-1].append(item)
        else:
            groups.append([item])
    return groups


def _goes_on(_: Piece, piece: Piece) -> bool:
    inside: bool = piece["inside"]
    return inside


def _same_entity(before: dict[str, Any], item: dict[str, Any]) -> bool:
    """Whether the classes are of one type, and the second does not begin an entity; without B- or I- none does."""
    begins, kind = _type_of(item["entity"])
    return not begins and kind == _type_of(before["entity"])[1]


def _type_of(tag: str) -> tuple[bool, str]:
    return tag.startswith("B-"), tag[2:] if tag.startswith(("B-", "I-")) else tag


def _entity(group: Sequence[dict[str, Any]], known: Known) -> dict[str, Any]:
    """The entity of a group of tokens or words."""
    return {
        "entity_group": group[0]["entity"].split("-", 1)[-1],
        "score": float(np.mean([each["score"] for each in group])),
        "word": known.tokens.joined([each["word"] for each in group]),
        "start": group[0]["start"],
        "end": group[-1]["end"],
    }


def _without_overlaps(entities: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of entities of several windows that overlap, the longest, and of equally long ones the surest."""
    kept: list[dict[str, Any]] = []
    for entity in sorted(entities, key=lambda each: each["start"]):
        last = kept[-1] if kept else None
        if last is None or not last["start"] <= entity["start"] < last["end"]:
            kept.append(entity)
        elif _weight(entity) > _weight(last):
            kept[-1] = entity
    return kept


def _weight(entity: dict[str, Any]) -> tuple[int, float]:
    return entity["end"] - entity["start"], entity["score"]


def is_one(given: Any, options: Options) -> bool:
    """Tell one input from a list of them: a list of words is one."""
    if options.is_split_into_words and isinstance(given, list | tuple):
        return not any(isinstance(each, list | tuple) for each in given)
    return not isinstance(given, list | tuple)


TASK = Task(options=Options, ask=ask, fields=("text",), is_one=is_one)
