"""Optional libraries: what needs one that is not installed is skipped and says which, so that any extra is enough."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable
from functools import cache

import pytest


def lacking(distributions: Iterable[str]) -> str:
    """Say which of the distributions are not installed; empty where all are."""
    absent = [name for name in distributions if name not in installed()]
    return f"not installed: {', '.join(absent)}" if absent else ""


@cache
def installed() -> frozenset[str]:
    """Names of all distributions; cached, since each of some hundred files of metadata is parsed for its name."""
    return frozenset(each.name.lower().replace("_", "-") for each in importlib.metadata.distributions())


def needs(*distributions: str) -> pytest.MarkDecorator:
    """Skip a test, or with `pytestmark` a file, where a library is absent; the tests of stages go by `apply`."""
    return pytest.mark.skipif(bool(lacking(distributions)), reason=lacking(distributions) or "all are installed")
