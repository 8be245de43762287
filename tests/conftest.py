"""Fixtures shared by all tests: small checkpoints and data of each head, made by the demo's generator."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from doubles import FEW_RUNS
from filelock import FileLock
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from optimize import running
from optimize.cli import commands, verbosity
from optimize.demo.generate import generate_rows, train_checkpoint

pytest_plugins = ("models", "dense", "encoders", "finished", "hub_server", "served", "slow.checkpoints")

SIZES = {"train": 300, "validation": 120, "test": 60}
STEPS = 40


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling:
    """Give a worker the tests of a whole file, which share what is made once; in tests/slow, those of a checkpoint."""
    return ByFile(config, log)


class ByFile(LoadFileScheduling):
    """By file, as `--dist loadfile`; by parameter where a file has a long run for each.

    `--dist loadgroup` does not group at all (pytest-xdist 3.8 renames tests in a way that pytest 9.2 ignores).
    """

    def _split_scope(self, nodeid: str) -> str:
        file, _, test = nodeid.partition("::")
        return f"{file}[{test.partition('[')[2]}" if file.startswith("tests/slow/") else file


@pytest.fixture(autouse=True)
def shown_as_usual() -> Iterator[None]:
    """A command that was told to be quiet leaves the next test what it says."""
    yield
    verbosity.be_usual()


@pytest.fixture
def optimize(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command line in this process; gives the exit code."""

    def call(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["optimize", *words])
        with pytest.raises(SystemExit) as stopped:
            commands.main()
        return stopped.value.code

    return call


@pytest.fixture(scope="module")
def few_runs() -> Iterator[None]:
    """Time models no longer than a median needs, in all tests of a file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "Settings", FEW_RUNS)
        yield


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, object, Callable[[Path], object]], Path]:
    """A folder that whoever asks first fills: a test, or a worker of pytest-xdist, which all look in one place.

    Its name says what it holds and ends in a digest of all that shapes it, so one that was made otherwise is not met.
    """
    session = tmp_path_factory.getbasetemp()
    shared = (session.parent if os.environ.get("PYTEST_XDIST_WORKER") else session) / "made-once"
    shared.mkdir(exist_ok=True)

    def make(name: str, shaped_by: object, fill: Callable[[Path], object]) -> Path:
        folder = shared / f"{name}-{hashlib.sha256(repr(shaped_by).encode()).hexdigest()[:16]}"
        with FileLock(f"{folder}.lock"):
            if not folder.exists():
                partial = Path(tempfile.mkdtemp(dir=shared))
                fill(partial)
                partial.rename(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def checkpoint(made_once) -> Callable[[str], Path]:
    """A head's small checkpoint, barely trained; made once, never to be written to."""

    def make(head: str) -> Path:
        # The code that trains does not change while tests run, and their folder is new for each run of pytest.
        def train(folder: Path) -> None:
            train_checkpoint(head, folder / "checkpoint", sizes=SIZES, steps=STEPS)

        return made_once(f"{head}-checkpoint", (head, SIZES, STEPS), train) / "checkpoint"

    return make


@pytest.fixture(scope="session")
def data_folder(made_once) -> Callable[[str], Path]:
    """A head's small data set as train, validation and test files; never to be written to."""

    def make(head: str) -> Path:
        def write(folder: Path) -> None:
            for split, rows in generate_rows(head, sizes=SIZES).items():
                lines = (json.dumps(row) + "\n" for row in rows)
                (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")

        return made_once(f"{head}-data", (head, SIZES), write)

    return make


@pytest.fixture(autouse=True)
def no_ci_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command says to a CI service, and where, is a test's own business."""
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "GITHUB_TOKEN", "GITHUB_API_URL", "GITHUB_REPOSITORY"):
        monkeypatch.delenv(name, raising=False)
