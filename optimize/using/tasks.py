"""How users ask a model, by its head."""

from __future__ import annotations

from optimize.interfaces import Head
from optimize.sentences.configs import OUTPUT
from optimize.using import (
    feature_extraction,
    fill_mask,
    multiple_choice,
    question_answering,
    text_classification,
    token_classification,
)
from optimize.using.asking import Task

TASKS: dict[str, Task] = {
    "feature-extraction": feature_extraction.TASK,
    "fill-mask": fill_mask.TASK,
    "text-classification": text_classification.TASK,
    "multiple-choice": multiple_choice.TASK,
    "token-classification": token_classification.TASK,
    "question-answering": question_answering.TASK,
}


def task_of(head: Head) -> Task:
    """The task of a head; that of a sentence encoder gives embeddings."""
    return feature_extraction.EMBEDDING if head.outputs == (OUTPUT,) else TASKS[head.name]
