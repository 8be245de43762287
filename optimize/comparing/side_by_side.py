"""Finished runs side by side: the first with each of the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from optimize.compared import Comparison, Pair
from optimize.comparing.answers import compare_answers, compare_decisions, pair
from optimize.comparing.environments import compare_speed, differences
from optimize.comparing.judged import Judged, read_judged, side_of
from optimize.errors import RequestError
from optimize.files.putting import put_file
from optimize.report.comparisons import render_comparison
from optimize.request import user_path

LEAST = 2


def compare_runs(folders: Sequence[Path]) -> Comparison:
    """Compare finished runs of any heads, targets and machines; what cannot be compared says why."""
    if len(folders) < LEAST:
        raise RequestError("RUN: one run is compared with nothing; name two or more")
    runs = _named(folders, [read_judged(folder) for folder in folders])
    return Comparison(runs=[side_of(run) for run in runs], pairs=[_pair(runs[0], run) for run in runs[1:]])


def write_comparison(comparison: Comparison, file: Path) -> None:
    """Write the page."""
    put_file(user_path(str(file), "--out"), render_comparison(comparison).encode())


def _named(folders: Sequence[Path], runs: Sequence[Judged]) -> list[Judged]:
    """The runs by names that tell them apart: where folders are called alike, their whole paths."""
    if len({run.name for run in runs}) == len(runs):
        return list(runs)
    return [replace(run, name=str(folder)) for folder, run in zip(folders, runs, strict=True)]


def _pair(first: Judged, second: Judged) -> Pair:
    paired, decided = pair(first, second), compare_decisions(first, second)
    return Pair(
        first=first.name,
        second=second.name,
        answers=None if isinstance(paired, str) else compare_answers(paired),
        answers_not_comparable=paired if isinstance(paired, str) else None,
        decisions=None if isinstance(decided, str) else decided,
        decisions_not_comparable=decided if isinstance(decided, str) else None,
        size_ratio=second.result.size.bytes / first.result.size.bytes,
        environment=differences(first.record, second.record),
        speed=compare_speed(first, second),
    )
