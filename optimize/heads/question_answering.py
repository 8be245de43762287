"""Extractive question answering in the manner of SQuAD 1.1 (Rajpurkar et al., 2016).

A context that is too long becomes several features, windows that overlap by 128 tokens; the best
span of all of them is the answer. Numbers are those of the BERT paper's script and of transformers'
`run_qa.py`: 384 tokens, 20 best starts and ends, answers of at most 30 tokens. Exact match and F1
are those of the official evaluation script, from 0 to 1. A window is not a truncation; only a
question that takes more than half of the tokens is cut, and counted.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from optimize.errors import DataError, shown
from optimize.heads import _encoding, _metrics
from optimize.heads._metrics import Array
from optimize.interfaces import Encoded, Feature, Feed, Head, Row, Score, Text

if TYPE_CHECKING:
    from tokenizers import Encoding

NAME = "question-answering"
OVERLAP_TOKENS = 128
QUESTION_TOKENS = 64
ANSWER_TOKENS = 30
N_BEST = 20
LEAST_TOKENS = 32
FIRST_TOKENS = (1, 3, 9, 27)  # an answer has a few words

Span = tuple[float, int, int]


def encode(rows: Sequence[Row], text: Text) -> Encoded:
    """Tokenize (question, context) pairs into windows over the context."""
    _encoding.require_fit(NAME, rows, faults(rows, text.config))
    _encoding.require_fast(text.tokenizer)
    limit = _encoding.token_limit(text)
    if limit < LEAST_TOKENS:
        raise DataError(f"{NAME}: {limit} tokens hold no context; allow {LEAST_TOKENS} or more")
    contexts, questions = [row["context"] for row in rows], [row["question"] for row in rows]
    gold = tuple(map(_answers, rows))
    kept = _shorten(questions, text, limit)
    batch = text.tokenizer(
        kept,
        contexts,
        truncation="only_second",
        max_length=limit,
        stride=min(OVERLAP_TOKENS, limit // 3),
        return_overflowing_tokens=True,
    )
    features = []
    for encoding, example in zip(batch.encodings, batch["overflow_to_sample_mapping"], strict=True):
        features.append(_feature(encoding, example, contexts[example]))
    cut = sum(old != new for old, new in zip(questions, kept, strict=True))
    return Encoded(tuple(features), gold, cut)


def faults(rows: Sequence[Row], config: Mapping[str, Any]) -> dict[int, str]:
    """Say what is wrong with rows: each has a question, and answers that its context holds."""
    del config

    def parse(row: Row) -> None:
        _encoding.string_in(row, "question")
        _answers(row)

    return _encoding.faults(rows, parse)


def _answers(row: Row) -> tuple[str, ...]:
    context, given = _encoding.string_in(row, "context"), row.get("answers")
    texts = given.get("text") if isinstance(given, Mapping) else None
    if texts is None or not _encoding.is_list(texts):
        raise _encoding.unfit("has no list of answer texts", 'give {"text": [...], "answer_start": [...]}')
    if not len(texts) or not all(isinstance(answer, str) and answer for answer in texts):
        raise _encoding.unfit("has no answer", "SQuAD 2.0's unanswerable questions are not supported, remove them")
    _encoding.require_unicode(texts, "an answer")
    if not any(answer in context for answer in texts):
        what = f"has the answer {shown(texts[0])}, which is not in its context"
        raise _encoding.unfit(what, "give answers that are spans of the context")
    return tuple(texts)


def _shorten(questions: Sequence[str], text: Text, limit: int) -> list[str]:
    """Cut questions that take more than half of the tokens."""
    most = min(QUESTION_TOKENS, limit // 4)
    whole = text.tokenizer(list(questions), add_special_tokens=False, verbose=False).encodings
    kept = []
    for question, encoding in zip(questions, whole, strict=True):
        end = len(question) if len(encoding) <= limit // 2 else encoding.offsets[most - 1][1]
        kept.append(question[:end])
    return kept


def _feature(encoding: Encoding, example: int, context: str) -> Feature:
    # Special tokens belong to no sequence, None; the question is sequence 0, the context 1.
    sequences = np.array(encoding.sequence_ids, dtype=np.float64)
    positions = np.flatnonzero(sequences == 1)
    extra = {
        "positions": positions,
        "offsets": np.array(encoding.offsets, dtype=np.int64)[positions],
        "context": context,
    }
    return _encoding.feature(encoding.ids, example, extra)


def read(feature: Feature, outputs: Feed) -> Array:
    """Return start and end logits of the context's tokens, [2, context tokens]."""
    positions = feature.extra["positions"]
    return np.stack([outputs["start_logits"][positions], outputs["end_logits"][positions]])


def decide(feature: Feature, rows: Array) -> list[Span]:
    """Return the best spans as (score, first character, character after the last), best first."""
    # A logit that is NaN comes last; a stable sort gives the same order of equal ones on every machine.
    logits = np.nan_to_num(rows.astype(np.float64), nan=-1e30)
    starts, ends = np.argsort(-logits, axis=1, kind="stable")[:, :N_BEST]
    # [starts, ends]: every pair of a start and an end, scored by the sum of their logits
    length = ends[None, :] - starts[:, None] + 1
    scores = logits[0, starts][:, None] + logits[1, ends][None, :]
    scores[(length < 1) | (length > ANSWER_TOKENS)] = -np.inf
    order = np.argsort(-scores, axis=None, kind="stable")[:N_BEST]
    offsets = feature.extra["offsets"]
    spans = []
    for i, j in zip(*np.unravel_index(order, scores.shape), strict=True):
        if np.isfinite(scores[i, j]):
            spans.append((float(scores[i, j]), int(offsets[starts[i], 0]), int(offsets[ends[j], 1])))
    return spans


def score(encoded: Encoded, answers: Sequence[list[Span]]) -> Score:
    """Score the best span of all windows of each example."""
    best, texts = [-np.inf] * len(encoded.gold), [""] * len(encoded.gold)
    for feature, spans in zip(encoded.features, answers, strict=True):
        if spans and spans[0][0] > best[feature.example]:
            best[feature.example], start, stop = spans[0]
            texts[feature.example] = feature.extra["context"][start:stop]
    statistics = np.empty((len(texts), 2))
    for row, text, golds in zip(statistics, texts, encoded.gold, strict=True):
        # SQuAD gives several right answers; the one most like the model's counts, for each metric on its own.
        row[:] = np.max([(f1(text, one), matches(text, one)) for one in golds], axis=0)
    return Score(
        metric="f1",
        statistics=statistics,
        aggregate=_metrics.mean_of_first,
        decisions=np.array(texts, dtype=np.str_),
        right=statistics[:, 1] == 1,
        others={"exact_match": float(statistics[:, 1].mean())},
    )


def constants(encoded: Encoded) -> Iterable[Sequence[list[Span]]]:
    """Return the first tokens of every context, so many of them: logits that are all equal choose the first one."""
    for count in FIRST_TOKENS:
        yield [_first_tokens(feature.extra["offsets"][:count]) for feature in encoded.features]


def _first_tokens(offsets: Array) -> list[Span]:
    return [(0.0, int(offsets[0, 0]), int(offsets[-1, 1]))] if len(offsets) else []


def normalize(answer: str) -> str:
    """Lower the case, and drop punctuation, articles and extra space, in SQuAD's order."""
    bare = answer.lower().translate(str.maketrans("", "", string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def matches(predicted: str, gold: str) -> bool:
    """Say whether two answers are the same once normalized."""
    return normalize(predicted) == normalize(gold)


def f1(predicted: str, gold: str) -> float:
    """Return the F1 of the words that two normalized answers share."""
    ours, right = normalize(predicted).split(), normalize(gold).split()
    shared = (Counter(ours) & Counter(right)).total()
    return _metrics.ratio(2.0 * shared, len(ours) + len(right))


HEAD = Head(
    name=NAME,
    auto_class="AutoModelForQuestionAnswering",
    outputs=("start_logits", "end_logits"),
    reads="all tokens",
    rows_are="logits",
    dataset=(
        {
            "id?": ("id",),
            "title?": ("title",),
            "context": ("context",),
            "question": ("question",),
            "answers": ("answers",),
        },
    ),
    metric="f1",
    weights=("qa_outputs.weight",),
    faults=faults,
    encode=encode,
    read=read,
    decide=decide,
    score=score,
    constants=constants,
    max_tokens=384,
    takes_pairs=True,
    usage='question="Who?", context="Ada did."',
)
