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

if TYPE_CHECKING:
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
