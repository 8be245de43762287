"""Where the real checkpoints are, and a run over one of them; skipped where they are not at hand."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

import pytest
from doubles import Silent

from optimize.manifest import Manifest
from optimize.planning import Options, make_plan
from optimize.running import run

SHARED = Path(__file__).parents[2].parent / "shared"
UNPACK = SHARED / "checkpoints" / "unpack"
# checkpoint: data, and how many examples judge it here
CASES = {
    "base": ("stsb", 200),
    "mlm": ("wikitext2", 80),
    "sst2": ("sst2", 200),
    "mutual": ("mutual", 60),
    "conll2003": ("conll2003", 200),
    "squad": ("squad", 80),
}
ABSENT = not UNPACK.is_file()
REASON = "the real checkpoints are not beside this repository"


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the six checkpoints in it."""
    folder = tmp_path_factory.mktemp("real")
    subprocess.run([UNPACK, folder / "checkpoints"], check=True)
    return folder


@pytest.fixture(scope="session")
def carry_out(unpacked: Path):
    """Run a pipeline on a checkpoint, with less data than by default; each pair once."""

    @cache
    def make(
        name: str, pipeline: str, calibration: int = 64, tuning: int = 128, *, build_only: bool = False
    ) -> tuple[Path, Manifest]:
        dataset, examples = CASES[name]
        path = unpacked / f"{abs(hash(pipeline))}.yaml"
        path.write_text(pipeline, encoding="utf-8")
        options = Options(
            model=str(unpacked / "checkpoints" / name),
            data=str(SHARED / "data" / dataset),
            examples=examples,
            calibration_examples=calibration,
            tuning_examples=tuning,
            pipeline=str(path),
            shapes=("1x128",),
            out=unpacked / "runs",
            cache=unpacked / "cache",
            build_only=build_only,
        )
        return run(make_plan(options), progress=Silent())

    return make
