"""What a tracker is told of a finished run, and what it has to do with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Tracked:
    """A finished run in the words of all trackers.

    `params` are what was asked for, stages' parameters by `stage.parameter`. `metrics` are numbers by the name of the
    model that was measured, in the order of the measurements, the judged one last. `tags` are what runs are looked for
    by. `description` is the run in short, in Markdown, what matters most first. All of `folder` is to be kept: model,
    report, scores and manifest.
    """

    name: str
    created: str
    params: Mapping[str, str]
    metrics: Mapping[str, Mapping[str, float]]
    tags: Mapping[str, str]
    description: str
    folder: Path


class Tracker(Protocol):
    """One kind of tracker."""

    def check(self, place: str | None) -> None:
        """Refuse, before a run begins, what could not be tracked after it; None is the tracker's usual place."""

    def track(self, run: Tracked, place: str | None) -> str:
        """Record a run, and say where; UnavailableError where the tracker does not take it."""
