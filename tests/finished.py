"""Finished runs of small checkpoints: FP32, which answer as the checkpoint does, and one of INT8 that passed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from doubles import FEW, FEW_RUNS, Silent

from optimize import running
from optimize.planning import Options, make_plan
from optimize.running import run

PIPELINE = "target: cpu\nstages: [export]\ngates: {}\n"
INT8 = "target: cpu\nstages: [export, quantize_dynamic]\ngates: {max_size_ratio: 0.5}\n"


def measured_run(place: Path, name: str, pipeline: str, *, model: Path, data: Path, examples: int = 40) -> Path:
    """The folder of a run of a pipeline's YAML on little data, with no more timings than a median needs."""
    path = place / f"{name}.yaml"
    path.write_text(pipeline, encoding="utf-8")
    places = {"out": place / "runs", "cache": place / "cache", "pipeline": str(path), **FEW}
    places |= {"model": str(model), "data": str(data), "examples": examples, "shapes": ("1x16",)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "Settings", FEW_RUNS)
        return run(make_plan(Options(**places, threads=1)), progress=Silent())[0]


@pytest.fixture(scope="session")
def passed_run(checkpoint, data_folder, made_once) -> Path:
    """The folder of a token classifier's run whose dynamic INT8 passed; never to be written to."""
    head = "token-classification"

    def fill(folder: Path) -> None:
        measured_run(folder, "mine", INT8, model=checkpoint(head), data=data_folder(head))

    return next((made_once("passed", INT8, fill) / "runs").iterdir())


@pytest.fixture(scope="session")
def exported_run(checkpoint, data_folder, made_once) -> Callable[..., Path]:
    """The folder of a head's run that exports its small checkpoint and measures nothing; never to be written to."""

    def make(head: str, model: Path | None = None, **changes: object) -> Path:
        def fill(folder: Path) -> None:
            path = folder / "export.yaml"
            path.write_text(PIPELINE, encoding="utf-8")
            places = {"out": folder / "runs", "cache": folder / "cache", "pipeline": str(path), **FEW}
            places |= {"model": str(model or checkpoint(head)), "data": str(data_folder(head)), "examples": 40}
            run(make_plan(Options(**places, threads=1, build_only=True, **changes)), progress=Silent())

        return next((made_once(f"{head}-exported", (head, model, changes), fill) / "runs").iterdir())

    return make
