"""Copies of the small checkpoint that a test may change, and how they are acquired."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from source.cases import HEAD, Change

from optimize import cache
from optimize.source.acquire import acquire_checkpoint
from optimize.source.finding import inspect_checkpoint


@pytest.fixture
def acquire(tmp_path: Path, silent: Any) -> Callable[..., cache.Entry]:
    """Inspect and acquire a folder, with a cache of the test's own."""

    def act(folder: Path, head: str | None = None) -> cache.Entry:
        found, chosen = inspect_checkpoint(str(folder), None, head)
        return acquire_checkpoint(found, chosen, root=tmp_path / "cache", seed=0, progress=silent)

    return act


@pytest.fixture
def changed(checkpoint: Callable[[str], Path], tmp_path: Path) -> Callable[..., Path]:
    """A copy of the small checkpoint after `change`."""

    def make(change: Change, head: str = HEAD) -> Path:
        folder = tmp_path / "model"
        shutil.copytree(checkpoint(head), folder)
        change(folder)
        return folder

    return make
