"""What a model answers in words, beside the answers that are scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from optimize.evaluate.predict import Outputs, run_split
from optimize.interfaces import Array, Encoded, Head, Progress, Row, Said, Session

NO_TEXTS = ("answers", "classes", "id", "score")
"""Roles that hold no text to be read, beside the head's labels."""


@dataclass(frozen=True)
class Spoken:
    """A model's outputs, and in words what it said of each example; nothing where its head has no words for it."""

    outputs: Outputs
    said: Sequence[Said]


def run_and_say(session: Session, head: Head, encoded: Encoded, *, pad_id: int, progress: Progress) -> Spoken:
    """Decide every feature, as `run_split` does, and say the answers."""
    listening = replace(head, decide=lambda feature, rows: (head.decide(feature, rows), sure_of(head, rows)))
    outputs = run_split(session, listening, encoded, pad_id=pad_id, progress=progress)
    answers = [answer for answer, _ in outputs.answers]
    # A head of a user's own may encode rows and not keep them; then nothing can be said of them.
    kept = len(encoded.rows) == len(encoded.gold)
    said = head.say(encoded, answers, [sure for _, sure in outputs.answers]) if kept else []
    return Spoken(replace(outputs, answers=answers), said)


def sure_of(head: Head, rows: Array) -> Array:
    """The softmax of the likeliest class in each row, [rows]; 0 where a model answers no number, or nothing."""
    import numpy as np

    if head.rows_are != "logits" or not rows.size:
        return np.zeros(len(rows))
    logits = rows.astype(np.float64)
    with np.errstate(invalid="ignore"):
        # softmax(logits).max() = 1 / sum exp(logits - max)
        shares: Array = 1.0 / np.exp(logits - logits.max(axis=-1, keepdims=True)).sum(axis=-1)
    return np.nan_to_num(shares)


def texts_of(row: Row, head: Head) -> dict[str, str]:
    """The texts of a row by the role that they play; a list of words is joined, as are choices."""
    found = {}
    for role, value in row.items():
        listed: Any = value.get("text") if isinstance(value, Mapping) else value
        if role in NO_TEXTS or role == head.labels:
            continue
        if isinstance(listed, str):
            found[role] = _readable(listed)
        elif _are_texts(listed):
            found[role] = _readable((" | " if role == "choices" else " ").join(listed))
    return found


def _readable(text: str) -> str:
    """The text with a question mark for each half of a character, which no file of text can hold."""
    return text.encode(errors="replace").decode()


def _are_texts(value: Any) -> bool:
    return isinstance(value, Sequence) and bool(value) and all(isinstance(each, str) for each in value)
