"""Optional libraries: what needs one that is not installed is skipped and says which, so that any extra is enough."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable

import pytest


def lacking(distributions: Iterable[str]) -> str:
    """Say which of the distributions are not installed; empty where all are."""
    installed = {each.name.lower().replace("_", "-") for each in importlib.metadata.distributions()}
    absent = [name for name in distributions if name not in installed]
    return f"not installed: {', '.join(absent)}" if absent else ""


def needs(*distributions: str) -> pytest.MarkDecorator:
    """Skip a test, or with `pytestmark` a file, where a library is absent; the tests of stages go by `apply`."""
    return pytest.mark.skipif(bool(lacking(distributions)), reason=lacking(distributions) or "all are installed")
