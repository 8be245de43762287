"""Multiple choice: which of several continuations or answers fits a context.

Every choice is read as the pair (context, choice). Where the row has the beginning of the ending
(SWAG, Zellers et al., 2018) or a question (RACE, Lai et al., 2017), it goes before the choice, or
the choice into the gap "_" of the question. The context is cut first: two choices without their
ends may be the same. Labels may be class ids or letters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from optimize.heads import _encoding, _metrics
from optimize.heads._metrics import Array
from optimize.interfaces import Encoded, Feature, Feed, Head, Row, Said, Score, Text

NAME = "multiple-choice"
COLUMNS = ("choice0", "choice1", "choice2", "choice3", "choice4")


def faults(rows: Sequence[Row], config: Mapping[str, Any]) -> dict[int, str]:
    """Say what is wrong with rows: each has a context, two choices or more, and which of them is right."""
    del config
    return _encoding.faults(rows, _parse)


def encode(rows: Sequence[Row], text: Text) -> Encoded:
    """Tokenize each row as [choices, T], padded to its own longest choice."""
    _encoding.require_fit(NAME, rows, faults(rows, text.config))
    firsts, seconds, bounds, gold = [], [], [0], []
    for row in rows:
        context, continuations, label = _parse(row)
        firsts += [context] * len(continuations)
        seconds += continuations
        bounds.append(len(firsts))
        gold.append(label)
    tokens = _encoding.tokenize(text, firsts, seconds, shorten="only_first")
    pad = int(text.tokenizer.pad_token_id or 0)
    features, cut = [], 0
    for example, (start, stop) in enumerate(pairwise(bounds)):
        group = tokens[start:stop]
        features.append(feature([item.encoding.ids for item in group], example, pad))
        cut += _encoding.count_cut(group) > 0
    return Encoded(tuple(features), tuple(gold), cut, rows=tuple(rows))


def _parse(row: Row) -> tuple[str, list[str], int]:
    """Return the context, what may go on from it, and which of these is right."""
    context, choices, continuations = question_in(row)
    return context, continuations, _label(row, len(choices))


def question_in(row: Row) -> tuple[str, list[str], list[str]]:
    """Return the context, the choices, and what each of them makes of what goes on from the context."""
    choices = _choices(row)
    return _encoding.string_in(row, "context"), choices, [_continuation(row, choice) for choice in choices]


def _choices(row: Row) -> list[str]:
    """Return the choices from one list, from {"text": list}, or from columns."""
    listed = row.get("choices")
    if isinstance(listed, Mapping):
        listed = listed.get("text")
    if listed is None:
        listed = [row[name] for name in COLUMNS if row.get(name) is not None]
    if not _encoding.is_list(listed):
        raise _encoding.unfit(f"has {_encoding.kind_of(listed)} as choices", "give a list of at least two strings")
    if len(listed) < 2 or not all(isinstance(choice, str) for choice in listed):
        what = f"has {len(listed)} choices, or some that are not text"
        raise _encoding.unfit(what, "give at least two strings")
    _encoding.require_unicode(listed, "a choice")
    return list(listed)


def _continuation(row: Row, choice: str) -> str:
    start, question = (_encoding.string_in(row, role) if row.get(role) else "" for role in ("start", "question"))
    if start:
        return f"{start} {choice}"
    if not question:
        return choice
    return question.replace("_", choice) if "_" in question else f"{question} {choice}"


def _label(row: Row, choices: int) -> int:
    """Return the label as an index: from the choices' own names, a number, or a letter."""
    label, listed = row.get("label"), row.get("choices")
    given = listed.get("label") if isinstance(listed, Mapping) else None
    # As text, since names that are numbers come before places: of "1" to "4", 1 is the first.
    names = [str(name) for name in given] if given is not None and _encoding.is_list(given) else []
    if str(label) in names:
        return _encoding.class_id(names.index(str(label)), choices)
    if isinstance(label, str) and len(label.strip()) == 1 and label.strip().isalpha() and label.isascii():
        label = ord(label.strip().upper()) - ord("A")
    return _encoding.class_id(label, choices)


def feature(choices: Sequence[Sequence[int]], example: int, pad: int) -> Feature:
    """Make the feature of the token ids of all choices, [choices, T]."""
    shape = len(choices), max(map(len, choices))
    input_ids = np.full(shape, pad, dtype=np.int64)
    attention_mask = np.zeros(shape, dtype=np.int64)
    for row, ids in enumerate(choices):
        input_ids[row, : len(ids)] = ids
        attention_mask[row, : len(ids)] = 1
    return Feature({"input_ids": input_ids, "attention_mask": attention_mask}, example)


def read(feature: Feature, outputs: Feed) -> Array:
    """Return the logits of the choices, [1, choices]."""
    del feature
    return outputs["logits"].reshape(1, -1)


def decide(feature: Feature, rows: Array) -> int:
    """Return the index of the choice."""
    del feature
    return int(_metrics.decided(rows)[0])


def score(encoded: Encoded, answers: Sequence[int]) -> Score:
    """Score the chosen indices by accuracy."""
    chosen = np.array(answers, dtype=np.int64)
    right = chosen == np.array(encoded.gold, dtype=np.int64)
    return Score(
        metric="accuracy",
        statistics=right[:, None].astype(np.float64),
        aggregate=_metrics.mean_of_first,
        decisions=chosen,
        right=right,
    )


def say(encoded: Encoded, answers: Sequence[int], sure: Sequence[Array]) -> list[Said]:
    """Return the text of the chosen choice."""
    tops = [float(each[0]) for each in sure]
    return _metrics.say_classes(answers, encoded.gold, tops, [_choices(row) for row in encoded.rows])


def constants(encoded: Encoded) -> Iterable[Sequence[int]]:
    """Return the index that is right most often, for every example."""
    yield [int(np.bincount(encoded.gold).argmax())] * len(encoded.features)


HEAD = Head(
    name=NAME,
    auto_class="AutoModelForMultipleChoice",
    outputs=("logits",),
    reads="first token",
    rows_are="logits",
    dataset=(
        {  # SWAG
            "context": ("sent1",),
            "start": ("sent2",),
            "choice0": ("ending0",),
            "choice1": ("ending1",),
            "choice2?": ("ending2",),
            "choice3?": ("ending3",),
            "label": ("label",),
        },
        {  # HellaSwag
            "context": ("ctx_a",),
            "start": ("ctx_b",),
            "choices": ("endings",),
            "label": ("label",),
        },
        {  # Cosmos QA
            "context": ("context",),
            "question": ("question",),
            "choice0": ("answer0",),
            "choice1": ("answer1",),
            "choice2?": ("answer2",),
            "choice3?": ("answer3",),
            "label": ("label",),
        },
        {  # RACE, MuTual, and whatever is like them
            "context": ("context", "article", "passage", "dialogue", "premise"),
            "question?": ("question",),
            "choices": ("choices", "options", "endings"),
            "label": ("label", "labels", "answer", "answerKey"),
        },
        {  # CommonsenseQA, ARC: the question is all there is
            "context": ("question", "question_stem"),
            "choices": ("choices", "options"),
            "label": ("label", "answerKey", "answer"),
        },
    ),
    metric="accuracy",
    weights=("pre_classifier.weight", "classifier.weight"),
    faults=faults,
    encode=encode,
    read=read,
    decide=decide,
    score=score,
    constants=constants,
    aggregates={"accuracy": _metrics.mean_of_first},
    say=say,
    labels="label",
    axes=("batch", "choices", "sequence"),
    takes_pairs=True,
    example=("Who?", "Ada.", "Nobody."),
)
