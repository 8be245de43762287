"""Stand-ins for what surrounds the code under test: progress, timing, a head. Each is written here and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from optimize.interfaces import Encoded, Head, Stack
from optimize.measure.latency import EngineTimes
from optimize.measure.rounds import Settings
from optimize.request import Options

FEW = {"calibration_examples": 16, "tuning_examples": 24}
"""Options of a run whose stages look at no more text than they need to work at all."""


def few_options(place: Path, model: Path, data: Path, **others: Any) -> Options:
    """Options of a small run below a folder, with more of them or others."""
    usual = {"examples": 60, "shapes": ("1x16",), "threads": 1, "out": place / "runs", "cache": place / "cache"}
    return Options(model=str(model), data=str(data), **{**usual, **FEW, **others})


LOOSE = {"gates.max_relative_metric_drop": 0.1, "gates.min_agreement": 0.8}
"""Limits that noise does not miss on so few texts, on whatever CPU rounds them."""

FEW_RUNS = partial(Settings, min_runs=4, min_seconds=0.0, rounds=2)
"""Settings of a run's timing with no more runs than a median needs."""


class Silent:
    """Progress that nobody watches."""

    def step(self, name: str, done: int, total: int) -> None:
        """Ignore it."""

    def say(self, line: str) -> None:
        """Ignore it."""


class Heard:
    """Progress that keeps what it hears: `lines` that were said, `steps` that were counted, `all` in their order."""

    def __init__(self) -> None:
        self.all = list[Any]()

    def step(self, name: str, done: int, total: int) -> None:
        """Keep the count."""
        self.all.append((name, done, total))

    def say(self, line: str) -> None:
        """Keep the line."""
        self.all.append(line)

    @property
    def lines(self) -> list[str]:
        """What was said."""
        return [each for each in self.all if isinstance(each, str)]

    @property
    def steps(self) -> list[tuple[str, int, int]]:
        """What was counted: name, done, total."""
        return [each for each in self.all if isinstance(each, tuple)]


LABELLING = Head(
    name="fake",
    auto_class="AutoModelForTokenClassification",
    outputs=("logits",),
    reads="all tokens",
    rows_are="logits",
    dataset=(),
    metric="accuracy",
    weights=(),
    faults=lambda rows, config: {},
    encode=lambda rows, text: Encoded((), (), 0),
    read=lambda feature, outputs: outputs["logits"],
    decide=lambda feature, rows: rows[:, 0].tolist(),
    score=lambda encoded, answers: pytest.fail("not scored here"),
    constants=lambda encoded: (),
)
"""A head that decides by the first class's logit of each token, and is not to be scored."""


def untimed_stacks(stacks: Sequence[Stack], tokens: int) -> list[float]:
    """Stand in for a target that times layers; a test that needs one says how long they take."""
    raise AssertionError(f"nothing is timed here, neither {len(stacks)} stacks nor {tokens} tokens")


def untimed_engines(engines: Sequence[Any], *_: object, **__: object) -> dict[str, EngineTimes]:
    """Stand in for the measurement of latency where nothing depends on it."""
    return {engine.name: EngineTimes(not_measured={"latency": "left out"}) for engine in engines}
