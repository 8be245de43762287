"""What is to be read of which data, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from optimize.data.urls import on_hub, without_secrets
from optimize.errors import DataError
from optimize.interfaces import Row
from optimize.manifest import Split


@dataclass(frozen=True)
class Wanted:
    """What to read and how much of it; `columns` maps roles to column names, `revision` is a Hub id's.

    `max_unusable` is the largest share of the rows drawn that may be left out because they cannot be used. Where rows
    are few, `training_share` of those that do not certify train before the others get all that they ask for.
    """

    data: str
    config: str | None
    columns: Mapping[str, str]
    certify_on: str | None
    examples: int
    calibration_examples: int
    tuning_examples: int
    seed: int
    revision: str | None = None
    training_examples: int = 0
    max_unusable: float = 0.01
    training_share: float = 0.0

    @property
    def rows(self) -> int:
        """How many rows all splits have together."""
        return self.examples + self.calibration_examples + self.tuning_examples + self.training_examples

    @property
    def name(self) -> str:
        """What messages and records call the data: an address without user, password and query."""
        return without_secrets(self.data)


@dataclass(frozen=True)
class Splits:
    """Rows with roles as keys and labels as class ids, a record of each split, and what should be said of the files.

    `labels` says how labels were read, and `config` is the one that they were matched to.
    """

    calibration: tuple[Row, ...]
    tuning: tuple[Row, ...]
    certification: tuple[Row, ...]
    records: dict[str, Split]
    training: tuple[Row, ...] = ()
    notes: tuple[str, ...] = ()
    labels: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)


def name_data(data: str, revision: str | None) -> tuple[str, str | None]:
    """Data and a revision as they are known from then on: an address of a whole data set on the Hub is its id."""
    found = on_hub(data)
    if found is None:
        return data, revision
    if found.revision and revision:
        raise DataError(f"--data-revision: {data} names one already; give one of the two")
    name = f"hf://datasets/{found.name}/{found.path}" if found.path else found.name
    return name, found.revision or revision
