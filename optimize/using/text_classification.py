"""Text classification as transformers' pipeline of this name answers: labels with scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from optimize.heads import _encoding
from optimize.interfaces import Array, Feed, Params
from optimize.using.asking import Known, Question, Task, best, parts_of, softmax, text_of

FIELDS = ("text", "text_pair")


class Options(Params):
    """How labels are given."""

    top_k: int | None = Field(
        default=1,
        ge=1,
        description="How many labels, the likeliest first; null for all. Left out, the likeliest alone.",
    )
    function_to_apply: Literal["softmax", "sigmoid", "none"] | None = Field(
        default=None,
        description="What makes scores of outputs. Left out, `none` for a regression, `sigmoid` for one output or "
        "several labels at a time, else `softmax`.",
    )


def ask(given: Any, options: Options, known: Known) -> Question:
    """Ask about a text, or a mapping of `text` and `text_pair`."""
    fields = parts_of(given, FIELDS, FIELDS[:1]) if isinstance(given, Mapping) else {"text": given}
    first, second = text_of(fields["text"]), fields.get("text_pair")
    second = None if second is None else text_of(second, "text_pair")
    encoding = known.tokens.encode(first, second, limit=known.max_tokens)

    def answer(outputs: Sequence[Feed]) -> Any:
        scores = _scores(outputs[0]["logits"].reshape(-1), options, known)
        places = best(scores, options.top_k)
        found = [{"label": known.classes[place], "score": float(scores[place])} for place in places]
        return found if "top_k" in options.model_fields_set else found[0]

    return Question((_encoding.feature(encoding.ids, 0),), answer)


def _scores(logits: Array, options: Options, known: Known) -> Array:
    """Scores [C] of the classes."""
    function, problem = options.function_to_apply, known.config.get("problem_type")
    if function is None and problem == "regression":
        function = "none"
    if function is None:
        function = "sigmoid" if len(logits) == 1 or problem == "multi_label_classification" else "softmax"
    if function == "sigmoid":
        with np.errstate(over="ignore"):
            return 1.0 / (1.0 + np.exp(-logits))
    return softmax(logits) if function == "softmax" else logits


def alone(answer: Any, given: Any, options: Options) -> Any:
    """Put the label of a text into a list, as the pipeline does where it is not told how many."""
    return [answer] if isinstance(given, str) and "top_k" not in options.model_fields_set else answer


TASK = Task(options=Options, ask=ask, fields=FIELDS, gives={"label": str, "score": float}, alone=alone)
