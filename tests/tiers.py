"""Which heads a test that takes seconds a head meets by default; the others are met by `make test-slow`."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from optimize.heads import HEADS


def slow_but(*heads: str, among: Iterable[str] = HEADS) -> list[object]:
    """Heads for `parametrize`: these by default, and the others in the slow tier."""
    return [pytest.param(head, marks=() if head in heads else pytest.mark.slow) for head in sorted(among)]


ALL_HEADS = sorted(HEADS)
EACH_HEAD = slow_but("fill-mask", "multiple-choice", "question-answering")
"""A table that two layers share, inputs of three axes of which the first token is read, and two outputs."""
