"""Extractive question answering in the manner of SQuAD 1.1 and 2.0 (Rajpurkar et al., 2016 and 2018).

A context that is too long becomes several features, windows that overlap by 128 tokens; the best
span of all of them is the answer. Numbers are those of the BERT paper's script and of transformers'
`run_qa.py`: 384 tokens, 20 best starts and ends, answers of at most 30 tokens. Exact match and F1
are those of the official evaluation script, from 0 to 1. A window is not a truncation; only a
question that takes more than half of the tokens is cut, and counted.

Where questions without an answer are among the rows, no answer is a decision too, as in SQuAD 2.0: it scores what the
first token, [CLS], scores as start and end, the least of all windows. It is taken where it is above the best span's
score by more than a threshold, which is fixed on tuning data. Rows that all have answers are scored as in SQuAD 1.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from optimize.errors import DataError
from optimize.heads import _encoding, _metrics
from optimize.heads._metrics import Array
from optimize.heads._squad import answers_in, best_threshold, score_of, start_in
from optimize.interfaces import Encoded, Feature, Feed, Fit, Head, Row, Said, Score, Text

if TYPE_CHECKING:
    from tokenizers import Encoding

NAME = "question-answering"
OVERLAP_TOKENS = 128
QUESTION_TOKENS = 64
ANSWER_TOKENS = 30
N_BEST = 20
LEAST_TOKENS = 32
FIRST_TOKENS = (1, 3, 9, 27)  # an answer has a few words

NO_ANSWER = "no_answer"
"""The threshold's name."""
NOTHING = "no answer"
NOWHERE = (0, 0)

Span = tuple[float, int, int]
"""Score, first character, character after the last; no answer is the span that ends where it begins."""


def encode(rows: Sequence[Row], text: Text) -> Encoded:
    """Tokenize (question, context) pairs into windows over the context."""
    _encoding.require_fit(NAME, rows, faults(rows, text.config))
    _encoding.require_fast(text.tokenizer)
    limit = _encoding.token_limit(text)
    if limit < LEAST_TOKENS:
        raise DataError(f"{NAME}: {limit} tokens hold no context; allow {LEAST_TOKENS} or more")
    contexts, questions = [row["context"] for row in rows], [row["question"] for row in rows]
    gold = tuple(map(answers_in, rows))
    may_decline = not all(gold)
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
        start = start_in(rows[example])
        features.append(window(encoding, example, contexts[example], may_decline=may_decline, start=start))
    cut = sum(old != new for old, new in zip(questions, kept, strict=True))
    return Encoded(tuple(features), gold, cut, rows=tuple(rows))


def faults(rows: Sequence[Row], config: Mapping[str, Any]) -> dict[int, str]:
    """Say what is wrong with rows: each has a question, and answers that its context holds, or none."""
    del config

    def parse(row: Row) -> None:
        _encoding.string_in(row, "question")
        answers_in(row)

    return _encoding.faults(rows, parse)


def _shorten(questions: Sequence[str], text: Text, limit: int) -> list[str]:
    whole = text.tokenizer(list(questions), add_special_tokens=False, verbose=False).encodings
    return [shortened(question, encoding, limit) for question, encoding in zip(questions, whole, strict=True)]


def shortened(question: str, encoding: Encoding, limit: int) -> str:
    """Cut a question that takes more than half of the tokens; `encoding` is its own, without special tokens."""
    most = min(QUESTION_TOKENS, limit // 4)
    return question[: len(question) if len(encoding) <= limit // 2 else encoding.offsets[most - 1][1]]


def window(encoding: Encoding, example: int, context: str, *, may_decline: bool, start: int | None = None) -> Feature:
    """Make the feature of a pair of question and context; the first token may decide where one `may_decline`.

    `start` is the character at which the answer begins, where that is known.
    """
    # Special tokens belong to no sequence, None; the question is sequence 0, the context 1.
    sequences = np.array(encoding.sequence_ids, dtype=np.float64)
    positions = np.flatnonzero(sequences == 1)
    if may_decline:
        positions = np.append(0, positions)
    extra = {
        "positions": positions,
        "offsets": np.array(encoding.offsets, dtype=np.int64)[positions],
        "context": context,
        "nulls": int(may_decline),
        "start": start,
    }
    return _encoding.feature(encoding.ids, example, extra)


def read(feature: Feature, outputs: Feed) -> Array:
    """Return start and end logits of the context's tokens, [2, context tokens]; [CLS] first where it may decide."""
    positions = feature.extra["positions"]
    return np.stack([outputs["start_logits"][positions], outputs["end_logits"][positions]])


def decide(feature: Feature, rows: Array) -> list[Span]:
    """Return the best spans as (score, first character, character after the last), best first; then no answer's."""
    # A logit that is NaN comes last; a stable sort gives the same order of equal ones on every machine.
    logits = np.nan_to_num(rows.astype(np.float64), nan=-1e30)
    nulls = feature.extra["nulls"]
    spans = _best_spans(logits[:, nulls:], feature.extra["offsets"][nulls:])
    return [*spans, (float(logits[:, 0].sum()), *NOWHERE)] if nulls else spans


def _best_spans(logits: Array, offsets: Array) -> list[Span]:
    starts, ends = np.argsort(-logits, axis=1, kind="stable")[:, :N_BEST]
    # [starts, ends]: every pair of a start and an end, scored by the sum of their logits
    length = ends[None, :] - starts[:, None] + 1
    scores = logits[0, starts][:, None] + logits[1, ends][None, :]
    scores[(length < 1) | (length > ANSWER_TOKENS)] = -np.inf
    order = np.argsort(-scores, axis=None, kind="stable")[:N_BEST]
    spans = []
    for i, j in zip(*np.unravel_index(order, scores.shape), strict=True):
        if np.isfinite(scores[i, j]):
            spans.append((float(scores[i, j]), int(offsets[starts[i], 0]), int(offsets[ends[j], 1])))
    return spans


def score(encoded: Encoded, answers: Sequence[list[Span]]) -> Score:
    """Score the best span of all windows of each example, or no answer where that is above it by the threshold."""
    texts = _texts(encoded, answers)
    statistics = _statistics(encoded, texts)
    return Score(
        metric="f1",
        statistics=statistics,
        aggregate=_metrics.mean_of_first,
        decisions=np.array(texts, dtype=np.str_),
        right=statistics[:, 1] == 1,
        others=_others(encoded, statistics),
    )


def _texts(encoded: Encoded, answers: Sequence[list[Span]]) -> list[str]:
    """Return the answer of each example, "" where none was given."""
    texts, leads = _best_of_windows(encoded.features, answers, len(encoded.gold))
    threshold = encoded.thresholds.get(NO_ANSWER, 0.0)
    return ["" if lead > threshold else text for text, lead in zip(texts, leads, strict=True)]


def say(encoded: Encoded, answers: Sequence[list[Span]], sure: Sequence[Array]) -> list[Said]:
    """Return the answers; how sure the model is of one is its likeliest start's share times its likeliest end's.

    Of several windows the surest counts.
    """
    tops = np.zeros(len(encoded.gold))
    for feature, shares in zip(encoded.features, sure, strict=True):
        tops[feature.example] = max(tops[feature.example], shares.prod())
    found = []
    for text, golds, top in zip(_texts(encoded, answers), encoded.gold, tops.tolist(), strict=True):
        found.append(Said(text or NOTHING, " | ".join(dict.fromkeys(golds)) or NOTHING, top))
    return found


def lead(windows: Sequence[Feature], answers: Sequence[list[Span]]) -> float:
    """Return how far no answer's score is above the best span of all windows of one question."""
    return float(_best_of_windows(windows, answers, 1)[1][0])


def _best_of_windows(features: Sequence[Feature], answers: Sequence[list[Span]], count: int) -> tuple[list[str], Array]:
    """The text of the best span, and how far no answer's score is above it [N]; minus infinity where it has none."""
    texts, best, nulls = [""] * count, np.full(count, -np.inf), np.full(count, np.inf)
    for feature, spans in zip(features, answers, strict=True):
        example = feature.example
        for value, start, stop in spans:
            if (start, stop) == NOWHERE:
                nulls[example] = min(nulls[example], value)
            elif value > best[example]:
                best[example], texts[example] = value, feature.extra["context"][start:stop]
    # A context without a single token has no span; whatever declines is then above it.
    leads = np.where(np.isfinite(nulls), nulls - best, -np.inf)
    return texts, leads


def _statistics(encoded: Encoded, texts: Sequence[str]) -> Array:
    """F1 and exact match of each example, [N, 2]."""
    statistics = np.empty((len(texts), 2))
    for row, text, golds in zip(statistics, texts, encoded.gold, strict=True):
        row[:] = score_of(text, golds, may_decline=_may_decline(encoded))
    return statistics


def _others(encoded: Encoded, statistics: Array) -> dict[str, float]:
    """Exact match, and both scores of the questions that have an answer and of those that have none."""
    found = {"exact_match": float(statistics[:, 1].mean())}
    if not _may_decline(encoded):
        return found
    answerable = np.array([bool(golds) for golds in encoded.gold])
    for name, chosen in (("has_answer", answerable), ("no_answer", ~answerable)):
        for metric, column in (("f1", 0), ("exact_match", 1)):
            if chosen.any():
                found[f"{name}_{metric}"] = float(statistics[chosen, column].mean())
    return found


def _may_decline(encoded: Encoded) -> bool:
    """Whether a question without an answer was among the rows."""
    return any(feature.extra["nulls"] for feature in encoded.features[:1])


def fit(encoded: Encoded, answers: Sequence[list[Span]]) -> dict[str, float]:
    """Return the threshold with which these answers have the best F1."""
    texts, leads = _best_of_windows(encoded.features, answers, len(encoded.gold))
    declined = _statistics(encoded, [""] * len(texts))[:, 0]
    return {NO_ANSWER: best_threshold(leads, _statistics(encoded, texts)[:, 0], declined)}


def constants(encoded: Encoded) -> Iterable[Sequence[list[Span]]]:
    """Return the first tokens of every context, so many of them, and no answer where that is one.

    Logits that are all equal choose the first token.
    """
    for count in FIRST_TOKENS:
        yield [_first_tokens(feature, count) for feature in encoded.features]
    if _may_decline(encoded):
        yield [[(0.0, *NOWHERE)] for _ in encoded.features]


def _first_tokens(feature: Feature, count: int) -> list[Span]:
    offsets = feature.extra["offsets"][feature.extra["nulls"] :][:count]
    return [(0.0, int(offsets[0, 0]), int(offsets[-1, 1]))] if len(offsets) else []


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
    aggregates={"f1": _metrics.mean_of_first},
    say=say,
    fit=Fit(needed=_may_decline, thresholds=fit),
    max_tokens=384,
    takes_pairs=True,
    example=("Who?", "Ada did."),
)
