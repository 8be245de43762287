"""Batches of mixed length without the padding: texts are padded to one of a few lengths, each length run by itself.

A CUDA graph is recorded for one shape, so there must be few; and a batch whose longest text has 200 tokens
computes 200 for each of the others. Nothing is approximated: what is cut off is masked, and no head reads it.
ONNX Runtime's other way, packing (`PackedAttention`), needs all padding on the right, and has a kernel for CUDA alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from optimize.errors import StageError
from optimize.interfaces import Array, Feed, Head, Session


def at_lengths(run: Session, lengths: Sequence[int], head: Head) -> Session:
    """A session that runs each text of a batch at the least of `lengths` that it fits in.

    Outputs have the shapes that `run` would have given them; at positions that are masked and were cut off they are 0.
    """
    import numpy as np

    def session(feed: Feed) -> Feed:
        rows, width = len(feed["input_ids"]), feed["input_ids"].shape[-1]
        needed = np.array([fitting(int(tokens), lengths) for tokens in used_tokens(feed["attention_mask"])])
        outputs: Feed = {}  # filled part by part; their shapes are known once the first has run
        for length in np.unique(needed):
            chosen = np.flatnonzero(needed == length)
            part = run({name: fit(array[chosen], int(length)) for name, array in feed.items()})
            for name, array in part.items():
                values = fit(array, width, axis=1) if head.reads == "all tokens" else array
                if name not in outputs:
                    outputs[name] = np.zeros((rows, *values.shape[1:]), dtype=values.dtype)
                outputs[name][chosen] = values
        return outputs

    return session


def used_tokens(mask: Array) -> Array:
    """The tokens of each row of a mask [N, T] or [N, choices, T] up to the last attended to, at least 1: [N]."""
    import numpy as np

    tokens = mask.shape[-1]
    attended = mask.reshape(len(mask), -1, tokens).any(axis=1)  # by any of a row's choices
    counts: Array = np.where(attended, np.arange(1, tokens + 1), 1)
    last: Array = counts.max(axis=1)
    return last


def fitting(tokens: int, lengths: Sequence[int]) -> int:
    """The least of `lengths` that so many tokens fit in."""
    for length in lengths:
        if tokens <= length:
            return length
    raise StageError(
        f"lengths: a text has {tokens} tokens and the longest of 'lengths' is {lengths[-1]}; "
        f"give --max-tokens {lengths[-1]}, or add a longer one"
    )


def fit(array: Array, length: int, *, axis: int = -1) -> Array:
    """Cut an axis to a length, or pad it with 0, which the mask hides."""
    import numpy as np

    present = array.shape[axis]
    if present >= length:
        return np.take(array, range(length), axis=axis)
    ends = [(0, 0)] * array.ndim
    ends[axis] = (0, length - present)
    return np.pad(array, ends)
