"""Fill-mask as transformers' pipeline of this name answers: the likeliest tokens for each mask of a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import Field

from optimize.errors import DataError, shown
from optimize.heads import _encoding
from optimize.interfaces import Array, Feed, Params
from optimize.using.asking import Known, Question, Task, best, softmax, text_of


class Options(Params):
    """How guesses are given."""

    top_k: int = Field(default=5, ge=1, description="How many tokens for each mask, the likeliest first.")
    targets: str | tuple[str, ...] | None = Field(
        default=None, description="Tokens of the vocabulary that the guess is one of. Left out, all of them."
    )


def ask(given: Any, options: Options, known: Known) -> Question:
    """Ask about a text with one mask token or several."""
    encoding = known.tokens.encode(text_of(given), limit=known.max_tokens)
    ids, mask = np.array(encoding.ids), known.tokens.id_of("mask_token")
    places = np.flatnonzero(ids == mask)
    if mask is None or not len(places):
        name = known.tokens.specials.get("mask_token", "[MASK]")
        raise DataError(f"the input: has no {name} among its first {known.max_tokens} tokens; put one in")
    targets = _targets(options, known)

    def answer(outputs: Sequence[Feed]) -> Any:
        found = []
        for place, row in zip(places.tolist(), outputs[0]["logits"][places], strict=True):
            found.append(_guesses(row, place, ids, targets, options.top_k, known, alone=len(places) == 1))
        return found[0] if len(found) == 1 else found

    return Question((_encoding.feature(encoding.ids, 0),), answer)


def _guesses(
    logits: Array, place: int, ids: Array, targets: Array | None, top_k: int, known: Known, *, alone: bool
) -> list[dict[str, Any]]:
    """The likeliest tokens at a place; other masks are left as they are in what a text becomes."""
    shares, decode = softmax(logits), known.tokens.plain.decode
    among = np.arange(len(shares)) if targets is None else targets
    found = []
    for index in best(shares[among], top_k):
        token = int(among[index])
        filled = ids.copy()
        filled[place] = token
        found.append(
            {
                "score": float(shares[token]),
                "token": token,
                "token_str": decode([token], skip_special_tokens=False),
                "sequence": decode(filled.tolist(), skip_special_tokens=alone),
            }
        )
    return found


def _targets(options: Options, known: Known) -> Array | None:
    """The ids of targets, each once. Raises DataError for one that is no token."""
    if options.targets is None:
        return None
    ids = []
    for target in [options.targets] if isinstance(options.targets, str) else options.targets:
        token = known.tokens.plain.token_to_id(target)
        if token is None:
            raise DataError(f"targets: {shown(target)} is no token of the model's vocabulary; name tokens of it")
        ids.append(token)
    if not ids:
        raise DataError("targets: names no token; name one, or leave it out")
    return np.unique(np.array(ids))


TASK = Task(options=Options, ask=ask, fields=("text",))
