"""Finished runs: a folder's manifest and model, held against each other before anybody goes by them.

A manifest is a file that anybody can edit. So its verdict is not believed but judged again from its measurements, and
these have to be of the model that lies beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from optimize import gates, manifest
from optimize.artifact import Artifact
from optimize.config import parse_gates
from optimize.errors import RequestError, first_line, unknown_name
from optimize.heads import HEADS
from optimize.manifest import Check, Manifest, Measurement, Verdict
from optimize.measure.kinds import KINDS
from optimize.stages import STAGES
from optimize.targets import TARGETS

MALFORMED = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def read_run(folder: Path) -> Manifest:
    """The manifest of a run folder; refuse one of a head, target or stage that this version does not have."""
    record, where = manifest.read(folder), f"{folder / manifest.FILE}"
    if record.request.head not in HEADS:
        raise unknown_name(f"{where}: head", record.request.head, HEADS)
    if record.request.target not in TARGETS:
        raise unknown_name(f"{where}: target", record.request.target, TARGETS)
    for each in record.stages:
        if each.stage not in STAGES:
            raise unknown_name(f"{where}: stages", each.stage, STAGES)
    made, runs = record.stages[-1].artifact.kind, TARGETS[record.request.target].runs
    if made != runs:
        raise RequestError(
            f"{where}: its stages end in {made}, but target {record.request.target} runs {runs}; run the pipeline again"
        )
    return record


def judged_model(folder: Path, record: Manifest) -> Artifact:
    """The model of a run folder; refuse one that was not the model judged, or that needs more than its folder."""
    final = manifest.final_model(folder, record)
    KINDS[final.kind].require_whole(final, HEADS[record.request.head])
    return final


def judge_again(folder: Path, record: Manifest, final: Artifact) -> Verdict:
    """What a passed run's limits say of its measurements; refuse anything but what its manifest says they do."""
    where = f"{folder / manifest.FILE}"
    if record.verdict.outcome != "passed":
        raise RequestError(f"{folder}: its verdict is {record.verdict.outcome}; only a passed run is published")
    if not record.measurements:
        raise RequestError(f"{where}: nothing was measured; certify the run")
    last = record.measurements[-1]
    if last.artifact_digest != final.digest:
        raise RequestError(f"{where}: its last measurement, '{last.name}', is of another model; certify the run")
    for what, stated, follows in _sums(record.measurements[0], last, final):
        if not _same(stated, follows):
            raise RequestError(f"{where}: {what} is stated as {stated}, and is {follows}; certify the run")
    limits = parse_gates(record.request.gates, record.request.target, where=f"{where}: gates")
    verdict = gates.judge(limits, last)
    _require_same_checks(where, record.verdict.checks, verdict.checks)
    if verdict.outcome != "passed":
        raise RequestError(f"{where}: its verdict is {verdict.outcome} by its limits, not passed; certify the run")
    return verdict


@contextmanager
def as_stated(folder: Path) -> Iterator[None]:
    """Refuse a manifest whose stages state what no page can show: facts are free, so reading does not check them."""
    try:
        yield
    except MALFORMED as error:
        raise RequestError(
            f"{folder / manifest.FILE}: states what no stage does ({type(error).__name__}: {first_line(error)}); "
            "run the pipeline again"
        ) from error


def _sums(first: Measurement, last: Measurement, final: Artifact) -> Iterator[tuple[str, float | None, float | None]]:
    """Numbers that follow from others: what each is called, what is stated, and what follows."""
    metric, size = last.metric, last.size
    if metric is not None:
        yield "the metric's reference", metric.reference, first.metric.value if first.metric else None
        yield "the drop", metric.drop, metric.reference - metric.value
        scale = abs(metric.reference)
        yield "the relative drop", metric.relative_drop, metric.drop / scale if scale else None
    yield "the model's size", size.bytes, final.model_bytes()
    yield "the size's ratio", size.ratio, size.bytes / first.size.bytes if first.size.bytes else None


def _same(stated: float | None, follows: float | None) -> bool:
    if stated is None or follows is None:
        return stated is follows
    return math.isclose(stated, follows, rel_tol=gates.ROUNDING, abs_tol=gates.ROUNDING)


def _require_same_checks(where: str, stated: list[Check], judged: list[Check]) -> None:
    """Refuse checks that do not come out of the measurements as they are stated."""
    for check in stated:
        if check.name not in [each.name for each in judged]:
            raise RequestError(f"{where}: check '{check.name}' is of no limit of the run; certify the run")
    for check in judged:
        said = next((each for each in stated if each.name == check.name), None)
        if said is None:
            raise RequestError(f"{where}: check '{check.name}' is missing; certify the run")
        if said.outcome != check.outcome:
            raise RequestError(
                f"{where}: check '{check.name}' is stated as {said.outcome}, and is {check.outcome} ({check.reason}); "
                "certify the run"
            )
        if not (_same(said.limit, check.limit) and _same(said.value, check.value)):
            raise RequestError(
                f"{where}: check '{check.name}' is stated as {said.value} for a limit of {said.limit}, and is "
                f"{check.value} for {check.limit}; certify the run"
            )
