"""Searches of seconds: a few steps of a small checkpoint on a small data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from doubles import Heard

from optimize.interfaces import Score
from optimize.request import Options
from optimize.tuned import Tuned
from optimize.tuning import trial
from optimize.tuning.plan import plan_tuning
from optimize.tuning.tune import tune

HEAD = "text-classification"
SHORT = {"tune.max_steps": 4, "tune.measurements": 2, "tune.grace": 1, "tune.trials": 2, "tune.batch_size": [16]}


def short_options(place: Path, model: Path, data: Path, head: str = HEAD, **others: Any) -> Options:
    """Options of a search below a folder, with more of them or others."""
    usual = {"tuning_examples": 60, "training_examples": 200, "calibration_examples": 16, "examples": 60, "threads": 1}
    settings = {**SHORT, **others.pop("settings", {})}
    places = {"out": place / "tuned", "cache": place / "cache"}
    return Options(model=str(model), head=head, data=str(data), settings=settings, **{**usual, **places, **others})


def carry_out(options: Options, progress: Any = None, **others: Any) -> tuple[Path, Tuned]:
    """A search, and what comes of it."""
    return tune(plan_tuning(options, **others), progress=progress or Heard())


def facts(record: Tuned) -> list[tuple[Any, ...]]:
    """What trials were and came to, but for how long they took."""
    found = []
    for each in record.trials:
        curve = [point.model_copy(update={"seconds": 0.0}) for point in each.curve]
        found.append((each.number, each.parameters, each.outcome, each.reason, curve))
    return found


@pytest.fixture
def scores(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have trials measure these numbers in place of what they score, one after the other."""

    def give(*values: float) -> None:
        left: Iterator[float] = iter(values)

        def score(*_: object) -> Score:
            value = next(left)
            return Score("accuracy", [[value]], lambda statistics: float(statistics[0][0]), [0])

        monkeypatch.setattr(trial, "score_of", score)

    return give
