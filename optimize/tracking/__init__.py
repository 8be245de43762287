"""Trackers: where finished runs are recorded beside their folders. TRACKERS is the one list; one file a tracker."""

from __future__ import annotations

from collections.abc import Mapping

from optimize.errors import unknown_name
from optimize.tracking.interface import Tracker
from optimize.tracking.mlflow import Mlflow

TRACKERS: Mapping[str, Tracker] = {"mlflow": Mlflow()}


def find_tracker(words: str) -> tuple[Tracker, str | None]:
    """The tracker and the place of NAME[:PLACE]; refuses an unknown name, and what its tracker cannot do here."""
    name, _, place = words.partition(":")
    if name not in TRACKERS:
        raise unknown_name("--track", name, TRACKERS)
    TRACKERS[name].check(place or None)
    return TRACKERS[name], place or None
