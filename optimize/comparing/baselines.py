"""Accepted runs, which later ones are held against: `FOLDER/NAME/` with a manifest and what each example scored.

NAME says what was asked: head, target, pipeline and model, and nothing of where or when. So a run of the same question
finds its baseline on another machine too. A checkpoint in a folder goes by the folder's name.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from optimize import manifest
from optimize.comparing.judged import Judged, read_judged
from optimize.errors import RequestError, brief
from optimize.evaluate.accuracy import COSINE_TO_REFERENCE
from optimize.files.assembling import assembled
from optimize.finished import judge_again, judged_model, read_run, require_passed
from optimize.manifest import Manifest
from optimize.refusals import check_place
from optimize.scores import FILE, Kept, read_scores, write_kept

FOLDER = Path("reports/accepted")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
MOST_OF_MODEL = 80
"""Characters of a model's id in a name."""


def baseline_name(record: Manifest) -> str:
    """What the baseline of a run is called."""
    return ".".join(re.sub(r"[^A-Za-z0-9_-]+", "-", each).strip("-") or "x" for each in _question(record))


def _question(record: Manifest) -> tuple[str, ...]:
    """What a run asked: model, head, target and pipeline."""
    request, source = record.request, record.source
    model = Path(source.id).name if source.kind == "folder" else source.id.replace("/", "--")
    return model[-MOST_OF_MODEL:], request.head, request.target, Path(request.pipeline).stem


def accept(run: Path, baselines: Path, *, name: str | None = None, any_verdict: bool = False) -> Path:
    """Store a run as the baseline of its question, in place of the one before; the baseline's folder.

    Refuses a run that has not passed, unless `any_verdict`; one that does not come out of its measurements as it says,
    or whose model is not the one that was measured; and to replace the baseline of another question.
    """
    record = read_run(run)
    if not any_verdict:
        require_passed(run, record, "accepted (or any, with --any-verdict)")
    judge_again(run, record, judged_model(run, record))
    scores = read_scores(run)
    if not scores:
        raise RequestError(f"{run / FILE}: is not there, so no later run can be paired with this one; certify the run")
    place = baselines / _checked(name or baseline_name(record))
    check_place(baselines, "the folder of baselines")
    _require_same_question(place, record)
    with assembled(baselines, place.name) as partial:
        shutil.copyfile(run / manifest.FILE, partial / manifest.FILE)
        write_kept(_small(scores, record), partial)
        _exchange(partial, place)
    return place


def _checked(name: str) -> str:
    if not NAME.fullmatch(name):
        raise RequestError(f"--name: '{brief(name)}' is no name; give letters, digits, dots, dashes and underscores")
    return name


def _require_same_question(place: Path, record: Manifest) -> None:
    """Refuse to replace what is no baseline, or that of another question."""
    if not (place.exists() or place.is_symlink()):
        return
    if place.is_symlink() or not (place / manifest.FILE).is_file():
        raise RequestError(f"{place}: is no baseline; remove it, or give another --name")
    theirs, ours = _question(manifest.read(place)), _question(record)
    if theirs != ours:
        raise RequestError(
            f"{place}: is the baseline of {', '.join(theirs)}, and the run is of {', '.join(ours)}; give another --name"
        )


def _small(scores: Mapping[str, Kept], record: Manifest) -> dict[str, Kept]:
    """Scores without vectors, which say nothing beside another run's."""
    metric = record.measurements[-1].metric
    if metric is None or metric.name != COSINE_TO_REFERENCE:
        return dict(scores)
    return {name: replace(kept, statistics=None) for name, kept in scores.items()}


def _exchange(new: Path, place: Path) -> None:
    """Put a folder in the place of another; where that fails, the other is still there."""
    old = new.with_name(f"{new.name}.old")
    if not place.exists():
        new.rename(place)
        return
    place.rename(old)
    try:
        new.rename(place)
    except OSError:
        old.rename(place)
        raise


def read_baseline(run: Judged, baselines: Path, name: str | None = None) -> Judged:
    """The accepted run that a run is held against; refuse where there is none."""
    wanted = _checked(name or baseline_name(run.record))
    place = baselines / wanted
    if not (place / manifest.FILE).is_file():
        known = sorted(each.parent.name for each in baselines.glob(f"*/{manifest.FILE}"))
        there = f"there are: {', '.join(known)}" if known else "there are none"
        raise RequestError(
            f"{place}: is no baseline ({there}); accept a run with `optimize accept`, or name one with --name"
        )
    return read_judged(place, wanted)
