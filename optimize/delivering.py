"""Hand finished runs on to whom one names, beside their folders: a file for CI, a tracker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from optimize.cache import stranger_in
from optimize.ci.findings import limits_of
from optimize.ci.junit import write_junit
from optimize.compared import read_regression
from optimize.errors import RequestError, UnavailableError
from optimize.finished import as_stated, judge_again, judged_model, read_run
from optimize.manifest import Manifest
from optimize.tracking import find_tracker
from optimize.tracking.interface import Tracked
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
        done += [f"tracked: {_record(track, tracked(folder, manifest))}" for folder, manifest in runs]
    return done


def track_runs(folders: Sequence[Path], words: str) -> Iterator[tuple[Path, str]]:
    """Record finished runs in the tracker `words`, as a run itself would; each run's folder, and where it is now.

    Refuses all of them where one does not come out of its measurements as it says, or leads out of its folder.
    """
    find_tracker(words, "--to")
    runs = [_finished(folder) for folder in folders]
    for folder, run in zip(folders, runs, strict=True):
        yield folder, _record(words, run)


def _finished(folder: Path) -> Tracked:
    """What a tracker is told of a run that nobody has looked at since it ended."""
    record = read_run(folder)
    judge_again(folder, record, judged_model(folder, record))
    if stranger := stranger_in(folder.resolve()):
        raise RequestError(f"{stranger}: is neither a file nor a folder of the run; remove it")
    with as_stated(folder):
        return tracked(folder, record, read_regression(folder, record))


def _record(words: str, run: Tracked) -> str:
    try:
        tracker, place = find_tracker(words)
        return tracker.track(run, place)
    except UnavailableError as error:
        what, _, advice = str(error).rpartition("; ")
        raise UnavailableError(f"{what}; the run is kept in {run.folder}, {advice}") from error
