"""The one list of heads: what a DistilBERT checkpoint can be for, by Hugging Face task name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optimize.heads import (
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


def head_of(name: str, folder: Path) -> Head:
    """The head of this name as the model of a folder has it: one that lists modules is a sentence encoder."""
    if name != feature_extraction.NAME or not lists_modules(folder):
        return HEADS[name]
    return feature_extraction.sentence_head(read_encoder(folder, where=str(folder)))
