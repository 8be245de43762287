"""Which heads a test that takes seconds a head meets by default; the others are met by `make test-slow`."""

from __future__ import annotations

import pytest

from optimize.heads import HEADS

BY_DEFAULT = ("fill-mask", "multiple-choice", "question-answering")
"""A table that two layers share, inputs of three axes of which the first token is read, and two outputs."""
EACH_HEAD = [pytest.param(head, marks=() if head in BY_DEFAULT else pytest.mark.slow) for head in sorted(HEADS)]
