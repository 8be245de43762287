"""The command in this process, and copies of a checkpoint and its data that a test may spoil."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hostile.cases import HEAD, Asked, Change

from optimize.cli import commands


@pytest.fixture
def optimize(invoke: Callable[..., Asked], tmp_path: Path) -> Callable[..., Asked]:
    """Run the command in this process, its output and cache in the test's own folder."""
    return lambda *words: invoke(*words, "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache"))


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Asked]:
    """Run the command in this process, with these words and no others."""

    def act(*words: str) -> Asked:
        monkeypatch.setattr(sys, "argv", ["optimize", *words])
        with pytest.raises(SystemExit) as ended:
            commands.main()
        return Asked(ended.value.code, *capfd.readouterr())

    return act


@pytest.fixture
def refuse(invoke: Callable[..., Asked]) -> Callable[..., str]:
    """Run a command that refuses at once, in one line and with exit code 2; gives the line."""

    def act(*words: str) -> str:
        asked = invoke(*words)
        (line,) = asked.err.splitlines()
        assert (asked.code, asked.out, line[:10]) == (2, "", "optimize: ")
        return line

    return act


@pytest.fixture
def folders(
    checkpoint: Callable[[str], Path], data_folder: Callable[[str], Path], tmp_path: Path
) -> Callable[..., Any]:
    """Options that name copies of the small checkpoint and its data, each after a change."""

    def make(model: Change = lambda folder: None, data: Change = lambda folder: None, head: str = HEAD) -> list[str]:
        for name, source, change in (("model", checkpoint(head), model), ("data", data_folder(HEAD), data)):
            shutil.copytree(source, tmp_path / name)
            change(tmp_path / name)
        return ["--model", str(tmp_path / "model"), "--data", str(tmp_path / "data")]

    return make
