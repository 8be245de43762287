"""Which part of a run a change comes from: the stage at which it falls behind the baseline most.

Both runs measured the model after each stage. What the run is behind by after a stage, less what it was behind by
before, came about there. A stage that the baseline has not is held against the baseline's model before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from optimize.building import stage_names
from optimize.compared import Blame
from optimize.comparing.judged import Judged
from optimize.manifest import Manifest, Measurement, StageRecord
from optimize.report.tables import REFERENCE
from optimize.request import write_setting

CHECKPOINT = "checkpoint"
Read = Callable[[Measurement], float | None]
"""A number of which more is worse; None where it was not measured."""


def find_blame(baseline: Judged, run: Judged, read: Read, *, start: str = REFERENCE) -> Blame | None:
    """The part at which a number got worse most; None where nothing says. `start` is what stages began from."""
    behind, worst = 0.0, None
    for name, old, new in _steps(baseline, run, start):
        before, after = read(old), read(new)
        if before is None or after is None:
            continue
        came = after - before - behind
        behind = after - before
        if came > 0 and (worst is None or came > worst[1]):
            worst = name, came
    if worst is None:
        return None
    return Blame(stage=worst[0], change=worst[1], settings=_settings(baseline.record, run.record, worst[0]))


def _steps(baseline: Judged, run: Judged, start: str) -> Iterator[tuple[str, Measurement, Measurement]]:
    """The parts of a run in order, each with the baseline's model and the run's after it; the results last."""
    theirs = {each.name: each for each in baseline.record.measurements}
    ours = {each.name: each for each in run.record.measurements}
    if start not in theirs or start not in ours:
        return
    old = theirs[start]
    yield CHECKPOINT if start == REFERENCE else start, old, ours[start]
    for name in stage_names(run.record.stages):
        if name in ours and name != run.result.name:
            old = theirs.get(name, old)
            yield name, old, ours[name]
    yield run.result.name, baseline.result, run.result


def _settings(baseline: Manifest, run: Manifest, stage: str) -> dict[str, str]:
    """Parameters of a stage that differ."""
    old, new = _params(baseline.stages, stage), _params(run.stages, stage)
    found = {}
    for name in old.keys() & new.keys():
        if old[name] != new[name]:
            found[name] = f"{write_setting(old[name])} → {write_setting(new[name])}"
    return dict(sorted(found.items()))


def _params(stages: list[StageRecord], stage: str) -> dict[str, object]:
    return next((each.params for name, each in zip(stage_names(stages), stages, strict=True) if name == stage), {})
