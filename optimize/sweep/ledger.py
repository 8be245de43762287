"""What a sweep has found so far, on disk: a line for each point, written once it is known, so that a kill loses none.

<folder>/sweep.yaml       the file that asked for it, as it was
<folder>/trials.jsonl     a line a point: what was found of it, and the machine; of two lines, the later one holds
<folder>/events.jsonl     what happened, and when
<folder>/runs/            certified runs
<folder>/sweep.json       all of it, written when the sweep ends or is interrupted
<folder>/sweep.html       the page
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from optimize.errors import RequestError, first_line
from optimize.manifest import Environment, Record
from optimize.swept import Trial

ASKED, TRIALS, EVENTS = "sweep.yaml", "trials.jsonl", "events.jsonl"


class Line(Record):
    """A point as the ledger has it."""

    trial: Trial
    environment: Environment | None = None


@dataclass
class Ledger:
    """The points of a folder's sweep that are known, by their ids, and the machines, by their keys."""

    folder: Path
    trials: dict[str, Trial] = field(default_factory=dict)
    environments: dict[str, Environment] = field(default_factory=dict)

    def note(self, trial: Trial, environment: Environment | None = None) -> None:
        """Write down what became of a point; the line is on disk when this returns."""
        self._take(Line(trial=trial, environment=environment))
        with (self.folder / TRIALS).open("a", encoding="utf-8") as stream:
            stream.write(Line(trial=trial, environment=environment).model_dump_json() + "\n")
            stream.flush()
            os.fsync(stream.fileno())

    def _take(self, line: Line) -> None:
        self.trials[line.trial.id] = line.trial
        if line.environment is not None:
            self.environments[line.trial.environment] = line.environment


def open_ledger(folder: Path) -> Ledger:
    """The ledger of a folder, with what it holds; a last line that a kill cut off is left out.

    Raises RequestError where another line is not of a sweep.
    """
    ledger, path = Ledger(folder), folder / TRIALS
    if not path.exists():
        return ledger
    text = path.read_text(encoding="utf-8", errors="replace")
    whole, _, cut = text.rpartition("\n")
    read = TypeAdapter(Line)
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            ledger._take(read.validate_json(line))
        except ValidationError as error:
            raise RequestError(
                f"{path}: line {number} is of no sweep ({first_line(error)}); begin in another folder with --out"
            ) from error
    if cut:  # the next line must not be appended to it
        path.write_text(f"{whole}\n" if whole else "", encoding="utf-8")
    return ledger


def key_of(environment: Environment) -> str:
    """What machines have in common whose times can be compared: processor, cores, GPU, system and libraries."""
    facts = environment.model_dump(mode="json", exclude={"memory_bytes", "memory_limit_bytes", "device"})
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
