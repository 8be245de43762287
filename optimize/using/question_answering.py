"""Question answering as transformers' pipeline of this name answers (4.57, the last that has it): spans with scores.

Scores are the pipeline's: a start's share times an end's, over the tokens of a window, and the sum over the windows and
spans that say the same. Where a run fixed a threshold for questions without an answer, it decides by that whether no
answer comes first, as it was judged; the scores stay what they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from pydantic import Field

from optimize.errors import DataError
from optimize.heads import question_answering
from optimize.interfaces import Array, Feature, Feed, Params
from optimize.using.asking import Known, Question, Task, parts_of, softmax, text_of

FIELDS = ("question", "context")
SPARE = 10
"""Spans that are looked at beyond twice those asked for, since some turn out to be the same words."""


class Options(Params):
    """How answers are found and given."""

    top_k: int = Field(default=1, ge=1, le=1000, description="How many answers, the likeliest first.")
    max_answer_len: int = Field(default=15, ge=1, description="Most tokens of an answer.")
    max_seq_len: int | None = Field(
        default=None, ge=question_answering.LEAST_TOKENS, description="Most tokens of a window. Left out, the run's."
    )
    doc_stride: int | None = Field(
        default=None, ge=0, description="Tokens that windows share. Left out, half of a window's, and at most 128."
    )
    handle_impossible_answer: bool | None = Field(
        default=None,
        description="Whether no answer is one: `true` puts it where its score does, `false` nowhere. Left out, the "
        "run's threshold decides whether it comes first, and without one there is no such answer.",
    )
    align_to_words: bool = Field(default=True, description="Widen answers to whole words.")


def ask(given: Any, options: Options, known: Known) -> Question:
    """Ask about a mapping of `question` and `context`."""
    fields = parts_of(given, FIELDS, FIELDS)
    question, context = (text_of(fields[name], name) for name in FIELDS)
    if not question or not context:
        raise DataError(f"the input: its {FIELDS[0] if not question else FIELDS[1]} is empty; give text")
    features = _windows(question, context, options, known)

    def answer(outputs: Sequence[Feed]) -> Any:
        found: dict[str, dict[str, Any]] = {}
        null = 1.0
        for feature, each in zip(features, outputs, strict=True):
            rows = question_answering.read(feature, each)
            shares = softmax(rows)
            null = min(null, float(shares[:, 0].prod()))
            _collect(found, shares[:, 1:], feature, options)
        answers = sorted(found.values(), key=lambda each: -each["score"])
        answers = _with_none(answers, null, features, outputs, options, known)[: options.top_k]
        return answers[0] if len(answers) == 1 else answers

    return Question(features, answer)


def _windows(question: str, context: str, options: Options, known: Known) -> tuple[Feature, ...]:
    """Features of the windows over a context; [CLS] is the first of their positions."""
    limit = min(options.max_seq_len or known.max_tokens, known.max_tokens)
    question = question_answering.shortened(question, known.tokens.whole(question, specials=False), limit)
    room = limit - len(known.tokens.whole(question, ""))
    stride = min(limit // 2, question_answering.OVERLAP_TOKENS) if options.doc_stride is None else options.doc_stride
    if stride >= room:
        if options.doc_stride is not None:
            raise DataError(f"doc_stride: {stride} is not below the {room} tokens of a window's context; give less")
        stride = room // 2
    found = []
    for encoding in known.tokens.windows(question, context, limit=limit, stride=stride, strategy="only_second"):
        feature = question_answering.window(encoding, 0, context, may_decline=True)
        found.append(replace(feature, extra={**feature.extra, "encoding": encoding}))
    return tuple(found)


def _collect(found: dict[str, dict[str, Any]], shares: Array, feature: Feature, options: Options) -> None:
    """Add a window's best spans to those of others, by what they say in small letters; `shares` are [2, context]."""
    positions, context = feature.extra["positions"][1:], feature.extra["context"]
    count = 2 * options.top_k + SPARE if options.align_to_words else options.top_k
    for start, stop, score in _spans(shares, options.max_answer_len, count):
        first, last = _characters(feature, int(positions[start]), int(positions[stop]), words=options.align_to_words)
        said = context[first:last]
        known = found.setdefault(said.lower(), {"score": 0.0, "start": first, "end": last, "answer": said})
        known["score"] += score


def _spans(shares: Array, longest: int, count: int) -> list[tuple[int, int, float]]:
    """The `count` likeliest spans of up to `longest` tokens as (first token, last token, score), likeliest first."""
    # [starts, ends]: an end is at its start or after it
    scores = np.tril(np.triu(np.outer(shares[0], shares[1])), longest - 1).ravel()
    chosen = np.argpartition(-scores, count)[:count] if count < len(scores) else np.arange(len(scores))
    chosen = chosen[np.argsort(-scores[chosen], kind="stable")]
    width, spans = shares.shape[1], []
    for place in chosen[scores[chosen] > 0].tolist():
        spans.append((*divmod(place, width), float(scores[place])))
    return spans


def _characters(feature: Feature, start: int, stop: int, *, words: bool) -> tuple[int, int]:
    """The first character of a span of tokens, and the one after its last; of the words around it with `words`."""
    encoding = feature.extra["encoding"]
    first, last = encoding.offsets[start][0], encoding.offsets[stop][1]
    ends = (encoding.token_to_word(start), encoding.token_to_word(stop)) if words else (None, None)
    if ends[0] is None or ends[1] is None:
        return first, last
    return encoding.word_to_chars(ends[0], sequence_index=1)[0], encoding.word_to_chars(ends[1], sequence_index=1)[1]


def _with_none(
    answers: list[dict[str, Any]],
    null: float,
    features: Sequence[Feature],
    outputs: Sequence[Feed],
    options: Options,
    known: Known,
) -> list[dict[str, Any]]:
    """The answers with no answer among them, where that is one; `null` is its score."""
    none = {"score": null, "start": 0, "end": 0, "answer": ""}
    threshold = known.thresholds.get(question_answering.NO_ANSWER)
    if options.handle_impossible_answer:
        return sorted([*answers, none], key=lambda each: -each["score"])
    if options.handle_impossible_answer is None and threshold is not None:
        spans = [question_answering.decide(*pair) for pair in zip(features, _rows(features, outputs), strict=True)]
        first = question_answering.lead(features, spans) > threshold
        return [none, *answers] if first else [*answers[:1], none, *answers[1:]]
    return answers


def _rows(features: Sequence[Feature], outputs: Sequence[Feed]) -> list[Array]:
    return [question_answering.read(*pair) for pair in zip(features, outputs, strict=True)]


def gather(fields: Mapping[str, Any]) -> Any:
    """Make one input, or a list where one field is a list, for each of which a text beside it counts."""
    lists = [value for value in fields.values() if isinstance(value, list | tuple)]
    if not lists:
        return dict(fields)
    if len({len(each) for each in lists}) > 1:
        raise DataError("the input: there are not as many questions as contexts; give one context, or one each")
    rows = []
    for index in range(len(lists[0])):
        rows.append(
            {name: value[index] if isinstance(value, list | tuple) else value for name, value in fields.items()}
        )
    return rows


def read_words(words: Sequence[str]) -> list[Any]:
    """Make the input of a question and a context."""
    if len(words) != len(FIELDS):
        raise DataError(f"the input: has {len(words)} words; give a question and its context")
    return [dict(zip(FIELDS, words, strict=True))]


TASK = Task(
    options=Options,
    ask=ask,
    fields=FIELDS,
    needed=FIELDS,
    gives={"score": float, "start": int, "end": int, "answer": str},
    gather=gather,
    read_words=read_words,
)
