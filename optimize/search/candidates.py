"""Candidates that could be built, and the reasons of those that could not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import chain

from optimize.artifact import Artifact
from optimize.building import Folded, Loaded, go_on, last_checkpoint, say_if_cached
from optimize.config import Pipeline, Step
from optimize.errors import StageError
from optimize.manifest import Probe, StageRecord
from optimize.measure.subjects import Subject


@dataclass(frozen=True)
class Built:
    """A candidate that could be built."""

    records: list[StageRecord]
    subject: Subject
    checkpoint: Artifact | None


@dataclass
class Candidates:
    """What was built, why others were not, and what a search tried on the way."""

    built: list[Built] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    probes: list[Probe] = field(default_factory=list)

    def add(self, folded: Folded, pipeline: Pipeline, steps: Iterable[Step]) -> None:
        """Build a candidate by these steps, or note why that failed.

        A stage that fails is one candidate less, and no failure of the run: the others need nothing of it.
        """
        progress = folded.loaded.progress
        progress.say(f"candidate {pipeline.name}")
        alone = replace(folded.loaded, plan=folded.loaded.plan.of(pipeline))
        try:
            done = go_on(replace(folded, loaded=alone), steps)
        except StageError as error:
            self.failed[pipeline.name] = " ".join(str(error).split())
            progress.say(f"candidate {pipeline.name}: not built: {self.failed[pipeline.name]}")
        else:
            subject = Subject(pipeline.name, done.last, pipeline.target, pipeline.runtime)
            self.built.append(Built(list(done.records), subject, last_checkpoint(done.artifacts)))

    def leave_out(self, name: str, reason: str) -> None:
        """Take back a candidate that was built, for a reason."""
        self.built = [each for each in self.built if each.subject.name != name]
        self.failed[name] = reason


def named_candidates(loaded: Loaded) -> Candidates:
    """Those that the pipeline names."""
    found = Candidates()
    for pipeline in loaded.plan.candidates:
        found.add(Folded(loaded), pipeline, pipeline.stages)
    return found


def require_any(found: Candidates, loaded: Loaded) -> None:
    """Refuse if none could be built."""
    if not found.built:
        reasons = " | ".join(f"{name}: {reason}" for name, reason in found.failed.items())
        raise StageError(f"pipeline {loaded.plan.pipeline.name}: no candidate could be built: {reasons}")
    say_if_cached(loaded, list(chain.from_iterable(each.records for each in found.built)))
