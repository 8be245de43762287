"""The one list of heads: what a DistilBERT checkpoint can be for, by Hugging Face task name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optimize.errors import unknown_name
from optimize.heads import (
    _custom,
    feature_extraction,
    fill_mask,
    multiple_choice,
    question_answering,
    text_classification,
    token_classification,
)
from optimize.sentences.layout import lists_modules, read_encoder

if TYPE_CHECKING:
    from pathlib import Path

    from optimize.interfaces import Head
    from optimize.request import HeadCode, Request

HEADS: dict[str, Head] = {
    "feature-extraction": feature_extraction.HEAD,
    "fill-mask": fill_mask.HEAD,
    "text-classification": text_classification.HEAD,
    "multiple-choice": multiple_choice.HEAD,
    "token-classification": token_classification.HEAD,
    "question-answering": question_answering.HEAD,
}
DEFAULT_HEAD = text_classification.HEAD.name
"""What the demo and the benchmark are for if nobody says what."""


def find_head(name: str) -> Head:
    """The head of a name in the table, or of a FILE:NAME, whose code is run; raises RequestError."""
    if _custom.is_custom(name):
        return _custom.load_head(name, taken=HEADS)
    if name not in HEADS:
        raise unknown_name("head", name, HEADS)
    return HEADS[name]


def same_head(name: str, code: HeadCode | None) -> Head:
    """The head that a run was begun with, whose code is run again."""
    return HEADS[name] if code is None else _custom.load_head(code.reference, taken=HEADS, digest=code.digest)


def recorded_head(request: Request) -> Head:
    """The head of a finished run; no code of a user's is run."""
    return HEADS[request.head] if request.head_code is None else _custom.recorded(request.head, request.head_code)


def head_of(name: str, folder: Path, code: HeadCode | None = None) -> Head:
    """The head of this name as the model of a folder has it: one that lists modules is a sentence encoder."""
    if code is not None:
        return _custom.recorded(name, code)
    if name != feature_extraction.NAME or not lists_modules(folder):
        return HEADS[name]
    return feature_extraction.sentence_head(read_encoder(folder, where=str(folder)))
