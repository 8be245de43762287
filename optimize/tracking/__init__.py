"""Trackers: where finished runs are recorded beside their folders. TRACKERS is the one list; one file a tracker."""

from __future__ import annotations

from collections.abc import Mapping

from optimize.errors import unknown_name
from optimize.tracking.interface import Tracker
from optimize.tracking.mlflow import Mlflow

TRACKERS: Mapping[str, Tracker] = {"mlflow": Mlflow()}


def find_tracker(words: str, flag: str = "--track") -> tuple[Tracker, str | None]:
    """The tracker and the place of NAME[:PLACE], as `flag` has it; refuses unknown names, and what cannot be done."""
    name, _, place = words.partition(":")
    if name not in TRACKERS:
        raise unknown_name(flag, name, TRACKERS)
    TRACKERS[name].check(place or None)
    return TRACKERS[name], place or None
