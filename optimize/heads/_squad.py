"""SQuAD's arithmetic: answers in all the forms that data sets give them, and the official scripts' numbers.

Versions 1.1 and 2.0 differ in what a text is worth of which normalizing leaves nothing: in 1.1 it shares no word with
any other, in 2.0 it is no answer, and so is a right answer of that kind where there is another.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from optimize.errors import shown
from optimize.heads import _encoding, _metrics
from optimize.heads._metrics import Array
from optimize.interfaces import Row

FORMS = 'give {"text": [...], "answer_start": [...]}, or a list of texts; an empty one where there is no answer'


def answers_in(row: Row) -> tuple[str, ...]:
    """Return the right answers that a row lists; none where its question has no answer."""
    context, texts = _encoding.string_in(row, "context"), _texts(row.get("answers"))
    if texts is None:
        raise _encoding.unfit("has no list of answer texts", FORMS)
    if not all(isinstance(text, str) and text for text in texts):
        raise _encoding.unfit("has an answer without text", FORMS)
    _encoding.require_unicode(texts, "an answer")
    if texts and not any(text in context for text in texts):
        what = f"has the answer {shown(texts[0])}, which is not in its context"
        raise _encoding.unfit(what, "give answers that are spans of the context")
    return tuple(texts)


def start_in(row: Row) -> int | None:
    """Return where in the context the first answer begins, if the row says so and is right."""
    given = row.get("answers")
    starts: Any = given.get("answer_start") if isinstance(given, Mapping) else None
    if isinstance(given, list | tuple):
        starts = [each.get("answer_start") for each in given if isinstance(each, Mapping)]
    first = next(iter(starts), None) if _encoding.is_list(starts) else starts
    text = next(iter(answers_in(row)), "")
    if isinstance(first, bool) or not isinstance(first, int | np.integer) or first < 0 or not text:
        return None
    return int(first) if row["context"].startswith(text, int(first)) else None


def _texts(given: Any) -> list[Any] | None:
    """Texts as a list, alone, or under "text" in a mapping of lists or a list of mappings."""
    if isinstance(given, Mapping):
        given = given.get("text")
    if isinstance(given, str):
        return [given]
    if not _encoding.is_list(given):
        return None
    return [each.get("text") if isinstance(each, Mapping) else each for each in given]


def score_of(text: str, golds: Sequence[str], *, may_decline: bool) -> tuple[float, float]:
    """Return F1 and exact match of an answer, "" for none; the right answer that is most like it counts for each.

    `may_decline` says that questions without an answer are in the data, so that version 2.0 counts.
    """
    if may_decline:
        golds = [gold for gold in golds if normalize(gold)]
        if not golds or not normalize(text):
            right = float(not golds and not normalize(text))
            return right, right
    return max(f1(text, gold) for gold in golds), float(any(matches(text, gold) for gold in golds))


def best_threshold(leads: Array, answered: Array, declined: Array) -> float:
    """Return the threshold that scores best where a question is declined if its lead is above it.

    `leads` [N] say how far no answer is above the best span, the others what an example scores if it is answered and if
    it is declined. Between two leads the threshold lies in the middle, so that rounding moves no answer over it; of
    thresholds that are equally good it is the one nearest to 0.
    """
    order = np.argsort(leads, kind="stable")
    ordered = leads[order]
    # [N + 1]: what all score together if the first 0, 1, ... N of them are answered
    totals = np.append(0.0, np.cumsum(answered[order])) + np.append(np.cumsum(declined[order][::-1])[::-1], 0.0)
    below, above = np.append(-np.inf, ordered), np.append(ordered, np.inf)
    usable = below < above
    middles = [_between(low, high) for low, high in zip(below[usable], above[usable], strict=True)]
    best = np.isclose(totals[usable], totals[usable].max(), rtol=0, atol=1e-9)
    return min((middle for middle, chosen in zip(middles, best, strict=True) if chosen), key=abs)


def _between(low: float, high: float) -> float:
    """A threshold that is at least the lower lead and below the higher one; beyond all of them, by 1."""
    if not np.isfinite(low):
        return float(high) - 1.0 if np.isfinite(high) else 0.0
    return float(low) + 1.0 if not np.isfinite(high) else float(low + high) / 2.0


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
