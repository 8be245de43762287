"""Feature extraction as transformers' pipeline of this name answers; of a sentence encoder, its embedding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import Field

from optimize.heads import _encoding
from optimize.heads.feature_extraction import read
from optimize.interfaces import Feed, Params
from optimize.sentences.configs import OUTPUT
from optimize.using.asking import Known, Question, Task, text_of


class Options(Params):
    """How vectors are given."""

    return_tensors: bool = Field(default=False, description="Give arrays of numpy in place of lists.")
    pooling: bool = Field(
        default=False, description="Give one vector a text, the mean of its tokens, which is what a run judges."
    )


class EmbeddingOptions(Params):
    """How embeddings are given."""


def ask(given: Any, options: Options, known: Known) -> Question:
    """Ask for the hidden states of a text, [1, T, D], or for their mean, [D]."""
    encoding = known.tokens.encode(text_of(given), limit=known.max_tokens)
    feature = _encoding.feature(encoding.ids, 0)

    def answer(outputs: Sequence[Feed]) -> Any:
        found = read(feature, outputs[0])[0] if options.pooling else outputs[0]["last_hidden_state"][None]
        return found if options.return_tensors else found.tolist()

    return Question((feature,), answer)


def ask_embedding(given: Any, options: EmbeddingOptions, known: Known) -> Question:
    """Ask for the embedding of a text, [E], which the encoder's own prompt is put before."""
    del options
    encoding = known.tokens.encode(known.prompt + text_of(given), limit=known.max_tokens)
    return Question((_encoding.feature(encoding.ids, 0),), lambda outputs: outputs[0][OUTPUT])


TASK = Task(options=Options, ask=ask, fields=("text",))
EMBEDDING = Task(
    options=EmbeddingOptions, ask=ask_embedding, fields=("text",), gives={"embedding": np.ndarray}, together=np.stack
)
"""Of a sentence encoder: what its library's `encode` gives."""
