"""Fixtures shared by all tests: small checkpoints and data of each head, made by the demo's generator."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from optimize.cli import commands
from optimize.demo.generate import generate_rows, train_checkpoint

pytest_plugins = ("models", "slow.checkpoints")

SIZES = {"train": 300, "validation": 120, "test": 60}
STEPS = 40


@pytest.fixture
def optimize(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command line in this process; gives the exit code."""

    def call(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["optimize", *words])
        with pytest.raises(SystemExit) as stopped:
            commands.main()
        return stopped.value.code

    return call


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A head's small checkpoint, barely trained; made once, never to be written to."""

    @cache
    def make(head: str) -> Path:
        folder = tmp_path_factory.mktemp(head) / "checkpoint"
        train_checkpoint(head, folder, sizes=SIZES, steps=STEPS)
        return folder

    return make


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A head's small data set as train, validation and test files; never to be written to."""

    @cache
    def make(head: str) -> Path:
        folder = tmp_path_factory.mktemp(head) / "data"
        folder.mkdir()
        for split, rows in generate_rows(head, sizes=SIZES).items():
            lines = (json.dumps(row) + "\n" for row in rows)
            (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
        return folder

    return make
