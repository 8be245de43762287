"""Hand finished runs on to whom the request names, beside their folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from optimize.ci.findings import limits_of
from optimize.ci.junit import write_junit
from optimize.errors import UnavailableError
from optimize.manifest import Manifest
from optimize.tracking import find_tracker
from optimize.tracking.record import tracked


def deliver(runs: Sequence[tuple[Path, Manifest]], *, junit: Path | None, track: str | None) -> list[str]:
    """Write the runs' limits to `junit` and record them in the tracker `track`, where that is asked for; what was done.

    A run is its folder and manifest, and is kept whatever fails here; UnavailableError says where it is.
    """
    done = []
    if junit is not None:
        write_junit([limits_of(manifest) for _, manifest in runs], junit)
        done.append(f"limits: {junit}")
    if track is not None:
        done += [f"tracked: {_track(track, folder, manifest)}" for folder, manifest in runs]
    return done


def _track(words: str, folder: Path, manifest: Manifest) -> str:
    try:
        tracker, place = find_tracker(words)
        return tracker.track(tracked(folder, manifest), place)
    except UnavailableError as error:
        what, _, advice = str(error).rpartition("; ")
        raise UnavailableError(f"{what}; the run is kept in {folder}, {advice}") from error
