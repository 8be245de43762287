"""Multiple choice in the form of a pipeline, of which transformers has none: the choice that fits, with its score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from optimize.heads import multiple_choice
from optimize.interfaces import Feed, Params
from optimize.using.asking import Known, Question, Task, best, parts_of, softmax
from optimize.using.tokens import Strategy

FIELDS = ("context", "choices", "question", "start")


class Options(Params):
    """How choices are given."""

    top_k: int | None = Field(
        default=1,
        ge=1,
        description="How many choices, the likeliest first; null for all. Left out, the likeliest alone.",
    )


def ask(given: Any, options: Options, known: Known) -> Question:
    """Ask about a mapping of `context` and `choices`, and maybe a `question`, or the `start` of all choices."""
    row = parts_of(given, FIELDS, FIELDS[:2])
    context, choices, continuations = multiple_choice.question_in(row)
    ids = []
    for each in continuations:
        whole = known.tokens.whole(context, each)
        if len(whole) > known.max_tokens:
            # The context is cut first, since choices without their ends may be the same.
            rest = len(whole) - sum(sequence == 0 for sequence in whole.sequence_ids)
            strategy: Strategy = "only_first" if rest < known.max_tokens else "longest_first"
            whole = known.tokens.encode(context, each, limit=known.max_tokens, strategy=strategy)
        ids.append(whole.ids)

    def answer(outputs: Sequence[Feed]) -> Any:
        scores = softmax(outputs[0]["logits"].reshape(-1))
        places = best(scores, options.top_k)
        found = [{"choice": choices[place], "index": place, "score": float(scores[place])} for place in places]
        return found if "top_k" in options.model_fields_set else found[0]

    return Question((multiple_choice.feature(ids, 0, known.tokens.pad_id),), answer)


def read_words(words: Sequence[str]) -> list[Any]:
    """Make the input of a context and its choices."""
    return [{"context": words[0], "choices": list(words[1:])}]


TASK = Task(
    options=Options,
    ask=ask,
    fields=FIELDS,
    needed=FIELDS[:2],
    gives={"choice": str, "index": int, "score": float},
    read_words=read_words,
)
