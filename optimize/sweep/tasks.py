"""The points of a sweep as tasks, and what each needs of others, so that shared stages run once. Pure.

Points whose pipelines begin alike share those stages' tasks, also across targets, unless a stage looks at the target or
at limits. Points of one model and target are measured some at a time, in the same rounds, beside their references.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

from optimize.stages import STAGES
from optimize.sweep.matrix import Point

TOGETHER = 6
"""Points that are measured in the same rounds: their references take a third of the time of two, a tenth of that of six
and more, and what was measured is lost with a machine at once."""
Kind = Literal["open", "reference", "stage", "measure", "certify"]


@dataclass(frozen=True)
class Task:
    """A piece of work, of the points that it is for; of a stage, for the first of them, up to that one of its stages.

    It begins once all in `needs` are done and all in `leaves` have ended; these are the last stages of its points, of
    which those drop out that failed. One that is `alone` has a machine to itself, and all of a `group` go to machines
    of one kind.
    """

    id: str
    kind: Kind
    name: str
    points: tuple[str, ...]
    stages: int = 0
    needs: tuple[str, ...] = ()
    leaves: Mapping[str, str] = field(default_factory=dict)
    alone: bool = False
    group: str = ""


def tasks_of(points: Sequence[Point], *, together: int = TOGETHER) -> list[Task]:
    """All tasks of some points, each after those that it needs."""
    found: dict[str, Task] = {}
    leaves = {point.id: _build(point, found) for point in points}
    groups: dict[str, list[Point]] = {}
    for point in points:
        groups.setdefault(f"{point.model} on {point.form.target}", []).append(point)
    for group, members in groups.items():
        opened = _open(members[0], found)
        plain = Task(f"reference:{group}", "reference", f"{group}: FP32", (members[0].id,), needs=(opened,))
        found[plain.id] = plain
        for batch in _batches(members, together):
            ids = tuple(point.id for point in batch)
            measure = Task(
                id=f"measure:{_digest(ids)}",
                kind="measure",
                name=f"{group}: {len(ids)} models measured",
                points=ids,
                needs=(plain.id,),
                leaves={each: leaves[each] for each in ids},
                alone=True,
                group=group,
            )
            found[measure.id] = measure
    return list(found.values())


def certifying(point: Point) -> Task:
    """The task of a run of a point that is chosen: judged on certification data, as any other run is."""
    group = f"{point.model} on {point.form.target}"
    return Task(
        f"certify:{point.id}", "certify", f"{group}: {point.label} certified", (point.id,), alone=True, group=group
    )


def _open(point: Point, found: dict[str, Task]) -> str:
    task = Task(f"open:{point.model}", "open", f"{point.model}: checkpoint and data", (point.id,))
    found.setdefault(task.id, task)
    return task.id


def _build(point: Point, found: dict[str, Task]) -> str:
    """Add the tasks of a point's stages; the last one's id."""
    last = _open(point, found)
    for count, step in enumerate(point.form.stages, 1):
        key = f"stage:{_digest(_material(point, count))}"
        found.setdefault(key, Task(key, "stage", f"{point.model}: {step.stage}", (point.id,), count, (last,)))
        last = key
    return last


def _material(point: Point, count: int) -> list[object]:
    """What the first stages of a point have in common with those of other points that give the same."""
    steps, form = point.form.stages[:count], point.form
    seen = frozenset[str]().union(*(STAGES[step.stage].depends(step.params) for step in steps))
    return [
        point.model,
        form.max_tokens,
        [step.as_yaml() for step in steps],
        [form.target, form.runtime.model_dump(mode="json")] if "target" in seen else None,
        form.gates.on_accuracy().model_dump(mode="json") if "limits" in seen else None,
    ]


def _digest(material: object) -> str:
    return hashlib.sha256(json.dumps(material, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _batches(points: Iterable[Point], size: int) -> Iterator[list[Point]]:
    rest = iter(points)
    while batch := list(islice(rest, size)):
        yield batch
