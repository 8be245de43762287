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
from optimize.building import stage_names
from optimize.config import parse_gates
from optimize.errors import RequestError, first_line, unknown_name
from optimize.heads import HEADS, head_of
from optimize.manifest import Check, Manifest, Metric, Verdict
from optimize.measure.kinds import KINDS
from optimize.report.tables import REFERENCE
from optimize.rule import ROUNDING
from optimize.stages import STAGES
from optimize.targets import TARGETS

MALFORMED = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def read_run(folder: Path) -> Manifest:
    """The manifest of a run folder; refuse one of a head, target or stage that this version does not have."""
    record, where = manifest.read(folder), f"{folder / manifest.FILE}"
    if record.request.head_code is None and record.request.head not in HEADS:
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


def result_name(record: Manifest) -> str:
    """What a run's result is called among its measurements: the chosen candidate, or the last stage."""
    return next((each.pipeline for each in record.candidates if each.chosen), stage_names(record.stages)[-1])


def judged_model(folder: Path, record: Manifest) -> Artifact:
    """The model of a run folder; refuse one that was not the model judged, or that needs more than its folder."""
    final = manifest.final_model(folder, record)
    KINDS[final.kind].require_whole(final, head_of(record.request.head, final.path, record.request.head_code))
    return final


def require_passed(folder: Path, record: Manifest, what_for: str) -> None:
    """Refuse a run that has not passed by its own manifest."""
    if record.verdict.outcome != "passed":
        raise RequestError(f"{folder}: its verdict is {record.verdict.outcome}; only a passed run is {what_for}")


def judge_again(folder: Path, record: Manifest, final: Artifact) -> Verdict:
    """What a run's limits say of its measurements; refuse anything but what its manifest says they do."""
    where = f"{folder / manifest.FILE}"
    if not record.measurements:
        raise RequestError(f"{where}: nothing was measured; certify the run")
    last = record.measurements[-1]
    if last.artifact_digest != final.digest:
        raise RequestError(f"{where}: its last measurement, '{last.name}', is of another model; certify the run")
    for what in _contradictions(record):
        raise RequestError(f"{where}: {what}; certify the run")
    for what, stated, follows in _sums(record, final):
        if not _same(stated, follows):
            raise RequestError(f"{where}: {what} is stated as {stated}, and is {follows}; certify the run")
    limits = parse_gates(record.request.gates, record.request.target, where=f"{where}: gates")
    verdict = gates.judge(limits, last)
    _require_same_checks(where, record.verdict.checks, verdict.checks)
    if verdict.outcome != record.verdict.outcome:
        raise RequestError(
            f"{where}: its verdict is {verdict.outcome} by its limits, not {record.verdict.outcome}; certify the run"
        )
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


def _contradictions(record: Manifest) -> Iterator[str]:
    """What in a manifest cannot be of one run that measured its result on the target."""
    first, last, request = record.measurements[0], record.measurements[-1], record.request
    plain, result = f"{request.target}-fp32", result_name(record)
    if (first.name, first.artifact_digest) != (REFERENCE, record.source.digest):
        yield f"its first measurement, '{first.name}', is not the checkpoint's as {REFERENCE}"
    if plain not in [each.name for each in record.measurements]:
        yield f"'{plain}' was not measured, so the result was not judged on its target"
    if last.metric and (last.metric.answers is None or last.metric.constant is None):  # as of version 1
        yield "its metric lacks `answers` or `constant`, so nothing shows that the data prove anything"
    yield from _of_candidates(record)
    if last.name != result:
        yield f"its last measurement is of '{last.name}', and its result is '{result}'"
    if request.stages != [{each.stage: each.params} for each in record.stages]:
        yield "its request has other stages than were carried out"
    if request.runtime != last.runtime:
        yield "its result was not measured with the request's runtime"


def _of_candidates(record: Manifest) -> Iterator[str]:
    """What in the list of candidates cannot be where the run's result was chosen from it."""
    chosen = [each for each in record.candidates if each.chosen]
    if record.candidates and len(chosen) != 1:
        yield f"{len(chosen)} of its candidates are chosen, where one has to be"
    for each in chosen:
        if each.stages != record.stages or each.measurement != record.measurements[-1].name:
            yield f"its chosen candidate, '{each.pipeline}', is not its result"


def _sums(record: Manifest, final: Artifact) -> Iterator[tuple[str, float | None, float | None]]:
    """Numbers that follow from others: what each is called, what is stated, and what follows."""
    first, last = record.measurements[0], record.measurements[-1]
    metric, size = last.metric, last.size
    if metric is not None:
        split = record.data["certification"]
        yield "the number of examples", metric.examples, split.count - split.left_out
        yield "the metric's reference", metric.reference, first.metric.value if first.metric else None
        yield "the drop", metric.drop, metric.reference - metric.value
        scale = abs(metric.reference)
        yield "the relative drop", metric.relative_drop, metric.drop / scale if scale else None
        yield from _sums_of_classes(metric, first.metric)
    yield "the model's size", size.bytes, final.model_bytes()
    yield "the size's ratio", size.ratio, size.bytes / first.size.bytes if first.size.bytes else None
    medians = {each.name: {time.shape: time.p50_ms for time in each.latency} for each in record.measurements}
    for time in last.latency:
        for name, ratio in time.speedup.items():
            over = medians.get(name, {}).get(time.shape)
            yield f"the speed-up over {name} at {time.shape}", ratio, over / time.p50_ms if over else None


def _sums_of_classes(metric: Metric, reference: Metric | None) -> Iterator[tuple[str, float | None, float | None]]:
    """What follows of F1 by class: its drops, its mean, and what the reference has."""
    known = [each.value for each in reference.classes] if reference else []
    for place, each in enumerate(metric.classes):
        follows = known[place] if place < len(known) else None
        yield f"the reference's F1 of class '{each.name}'", each.reference, follows
        yield f"the drop of class '{each.name}'", each.drop, each.reference - each.value
    macro, count = metric.macro_f1, len(metric.classes)
    if macro is not None:
        yield "macro F1", macro.value, sum(each.value for each in metric.classes) / count if count else None
        mean = sum(each.reference for each in metric.classes) / count if count else None
        yield "the reference's macro F1", macro.reference, mean
        yield "the drop of macro F1", macro.drop, macro.reference - macro.value


def _same(stated: float | None, follows: float | None) -> bool:
    if stated is None or follows is None:
        return stated is follows
    return math.isclose(stated, follows, rel_tol=ROUNDING, abs_tol=ROUNDING)


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
