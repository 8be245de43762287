"""How two runs' times are compared: beside the FP32 reference that each run timed in turn with its models.

A machine is not as fast today as yesterday, its own times of the same model differ by a fifth, and this cancels in the
ratio. Where the references are of other sizes, a ratio to them says nothing of a run that is the slower one of two, and
times are compared as they are, if environments match.
"""

from __future__ import annotations

from collections.abc import Iterator

from optimize.compared import Speed
from optimize.comparing.judged import Judged, own_reference
from optimize.manifest import Latency, Manifest
from optimize.measure.shapes import DATA
from optimize.report.tables import REFERENCE, at_shape, in_order
from optimize.targets import TARGETS

MACHINE = ("cpu", "features", "cores", "cpu_quota", "gpu")
"""Fields of a manifest's environment that times depend on. Beside them: threads, versions of runtimes, the device."""


def differences(first: Manifest, second: Manifest) -> list[str]:
    """In what the environments of two runs differ, of what times depend on; they match where it is empty."""
    return [f"{what}: {one} and {other}" for what, one, other in _conditions(first, second) if one != other]


def _conditions(first: Manifest, second: Manifest) -> Iterator[tuple[str, str, str]]:
    """What times depend on, and what it was in either run."""
    ours, theirs = first.environment, second.environment
    for name in MACHINE:
        yield name.replace("_", " "), _words(getattr(ours, name)), _words(getattr(theirs, name))
    yield "threads", str(first.request.threads), str(second.request.threads)
    for library in in_order(TARGETS[each.request.target].needs for each in (first, second)):
        yield library, ours.versions.get(library, "unknown"), theirs.versions.get(library, "unknown")
    # Targets describe their devices in words of their own, of which the common ones can be compared.
    for fact in ours.device.keys() & theirs.device.keys():
        yield fact.replace("_", " "), ours.device[fact], theirs.device[fact]


def _words(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none known"
    return "none" if value is None else str(value)


def compare_speed(first: Judged, second: Judged) -> list[Speed]:
    """The ratio of two runs' times at each shape: as gains over the same FP32, else directly."""
    over = _common_reference(first, second)
    direct = not differences(first.record, second.record) and _bytes(first, over) != _bytes(second, over)
    shapes = in_order([each.shape for each in run.result.latency] for run in (first, second))
    return [_at(shape, first, second, None if direct else over) for shape in shapes]


def _common_reference(first: Judged, second: Judged) -> str:
    """The target's own FP32 where both have the same one: it runs in the same engine as the result."""
    ours, theirs = own_reference(first.record), own_reference(second.record)
    return ours if ours == theirs else REFERENCE


def _bytes(run: Judged, reference: str) -> int | None:
    return next((each.size.bytes for each in run.record.measurements if each.name == reference), None)


def _at(shape: str, first: Judged, second: Judged, over: str | None) -> Speed:
    ours, theirs = at_shape(first.result, shape), at_shape(second.result, shape)
    if ours is None or theirs is None:
        return _not_comparable(shape, f"{(first if ours is None else second).name} was not timed at it")
    for run, each in ((first, ours), (second, theirs)):
        if each.unreliable:
            return _not_comparable(shape, f"not reliable in {run.name}: {each.unreliable}")
    if shape.endswith(DATA) and _data(first) != _data(second):
        return _not_comparable(shape, "texts are as long as they occur, and the data differ")
    if over is None:
        return Speed(shape=shape, ratio=theirs.p50_ms / ours.p50_ms, over=None, not_comparable=None)
    return _relative(shape, ours, theirs, over)


def _relative(shape: str, first: Latency, second: Latency, over: str) -> Speed:
    if over not in first.speedup or over not in second.speedup:
        return _not_comparable(shape, f"{over} was not timed in both runs")
    return Speed(shape=shape, ratio=first.speedup[over] / second.speedup[over], over=over, not_comparable=None)


def _not_comparable(shape: str, why: str) -> Speed:
    return Speed(shape=shape, ratio=None, over=None, not_comparable=why)


def _data(run: Judged) -> str:
    return run.record.data["certification"].digest
