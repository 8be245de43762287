"""A data set's columns seen through a head's roles."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

from optimize.data.choices import match_choices
from optimize.data.classes import Config
from optimize.data.columns import Column, read_column
from optimize.data.files import Files
from optimize.data.labels import Reading, match_labels, match_tags
from optimize.data.places import places
from optimize.errors import DataError
from optimize.interfaces import Head, Layout, Row

if TYPE_CHECKING:
    from optimize.data.read import Table

NAMED = 3
"""Rows that a refusal names; of the others it says how many there are."""
LOOKED_AT = 100_000
"""Rows at a table's beginning that a refusal counts bad ones among, which takes seconds."""

CLASSES = "classes"
"""The role of the names that a data set gives classes which the checkpoint only numbers."""

Drawn = tuple[int, Row]
"""A row and its index in the table that it was drawn from."""


class Rows:
    """A table seen through a head's roles: rows are renamed and labelled when they are asked for.

    How labels are read, and which config they are matched to, is for `read_labels` to say; until then they stay as they
    are, and no row is looked at.
    """

    def __init__(self, table: Table, head: Head, columns: Mapping[str, str], *, where: str, files: Files) -> None:
        present = table.column_names if hasattr(table, "column_names") else list(table[0]) if table else []
        self._roles = match_layout(head, present, columns, where=where) if present else {}
        self._table = _with_columns(table, self._roles.values())
        self._head = head
        self.where = where
        self._files = files
        self._unmatched: dict[int, str] = {}
        column = self._roles.get(head.labels or "")
        self.labels = read_column(table, column) if column else None
        self.reading: Reading | None = None
        self.config: Config = {}

    def __len__(self) -> int:
        return len(self._table)

    @property
    def first(self) -> Row:
        """The first row as the table has it, by roles."""
        source = self._table[0]
        return {role: source[column] for role, column in self._roles.items()}

    def __getitem__(self, index: int) -> Row:
        """A row; one whose label is no class keeps it, and is refused once it is used."""
        source = self._table[index]
        row = {role: source[column] for role, column in self._roles.items()}
        if self.reading is not None and self._head.labels is not None:
            if self.reading.classes:
                row[CLASSES] = self.reading.classes
            try:
                row[self._head.labels] = self.reading.match(row[self._head.labels])
            except DataError as error:
                self._unmatched[index] = str(error)
        return row

    @property
    def name(self) -> str:
        """What a record of a run calls it: by its file's name, without the folders that it lies in."""
        return self._files[0].name if len(self._files) == 1 else self.where.rpartition("/")[2]

    def draw(self, indices: Iterable[int]) -> Iterator[Drawn]:
        """Rows with their indices, each read when it is asked for."""
        return ((index, self[index]) for index in indices)

    def faults(self, drawn: Sequence[Drawn]) -> dict[int, str]:
        """What is wrong with rows, by their indices in the table."""
        found = self._head.faults([row for _, row in drawn], self.config)
        faults = {index: found[place] for place, (index, _) in enumerate(drawn) if place in found}
        return faults | {index: self._unmatched[index] for index, _ in drawn if index in self._unmatched}

    def named(self, faults: Mapping[int, str]) -> list[str]:
        """The first of the rows that cannot be used, by where they stand, with what is wrong, and how many more."""
        first = sorted(faults)[:NAMED]
        named = [f"{place}: {faults[index]}" for index, place in zip(first, places(self._files, first), strict=True)]
        return named + ([f"and {len(faults) - NAMED:,} more"] if len(faults) > NAMED else [])

    def refuse(self, drawn: Sequence[Drawn]) -> NoReturn:
        """Refuse rows of which some cannot be used; all of the table's are counted, and the first named."""
        # Whoever mends the file mends it once: what is wrong with rows that nothing uses is said as well.
        indices = sorted({*range(min(len(self), LOOKED_AT)), *(index for index, _ in drawn)})
        faults = self.faults(list(self.draw(indices)))
        named = self.named(faults)
        if len(faults) == 1:
            raise DataError(f"{self.where}, {named[0]}")
        raise DataError(f"{self.where}: {len(faults):,} of {len(indices):,} rows cannot be used: {' | '.join(named)}")


def _with_columns(table: Table, columns: Iterable[str]) -> Table:
    """The table with these columns alone: what others hold, such as pictures, is not decoded."""
    if isinstance(table, list) or not columns:
        return table
    return table.select_columns(sorted(set(columns)))


def read_labels(tables: Sequence[Rows], head: Head, config: Config) -> str:
    """Decide how labels are read, by what occurs in all of the tables, and say it in words; none where there are none.

    Raises DataError where they can be read in two ways.
    """
    columns = [rows.labels for rows in tables if rows.labels and not rows.labels.hidden]
    said: dict[str, None] = {}
    for rows in tables:
        rows.config = config
        if rows.labels:
            column = _together(rows.labels, [each for each in columns if each.names == rows.labels.names])
            rows.reading = _reading(column, rows, head, config)
            said[rows.reading.words] = None
    return "; ".join(said)


def _together(column: Column, columns: Sequence[Column]) -> Column:
    """A column with all that occurs in some that are like it."""
    seen = tuple(value for each in columns for value in each.seen)
    lengths = frozenset[int]().union(*(each.lengths or () for each in columns)) or None
    return replace(column, seen=seen, lengths=lengths)


def _reading(column: Column, rows: Rows, head: Head, config: Config) -> Reading:
    try:
        if head.has_choices:
            return match_choices(column, rows.first)
        return match_tags(column, config) if head.reads == "all tokens" else match_labels(column, config)
    except DataError as error:
        raise DataError(f"{rows.where}: {error}") from error


def match_layout(head: Head, present: Sequence[str], columns: Mapping[str, str], *, where: str) -> dict[str, str]:
    """Which column holds each role: the first of the head's layouts that the columns can fill.

    `columns` names columns outright and is refused where it names an unknown role or column.
    """
    known = set[str]().union(*map(_roles, head.dataset))
    for role, column in columns.items():
        if role not in known:
            raise DataError(
                f"--columns: head '{head.name}' has no role '{role}'; its roles are {', '.join(sorted(known))}"
            )
        if column not in present:
            raise DataError(f"{where}: no column '{column}' for role '{role}'; there are {', '.join(present)}")
    for layout in head.dataset:
        if (found := _fill(layout, present, columns)) is not None:
            return found
    # The last layout is the plainest one, which a refusal is best explained with.
    needed = " and ".join("|".join(names) for role, names in head.dataset[-1].items() if not role.endswith("?"))
    raise DataError(
        f"{where}: no columns for head '{head.name}', which needs for instance {needed}; "
        f"there are {', '.join(present)}; name them with --columns role=column"
    )


def first_present(names: Iterable[str], present: Sequence[str]) -> str | None:
    """The first of some names that is present."""
    return next((name for name in names if name in present), None)


def _roles(layout: Layout) -> set[str]:
    return {role.removesuffix("?") for role in layout}


def _fill(layout: Layout, present: Sequence[str], columns: Mapping[str, str]) -> dict[str, str] | None:
    """The column of each role, or None where a role that must be there has none."""
    roles: dict[str, str] = {}
    if not set(columns) <= _roles(layout):
        return None
    for role, names in layout.items():
        name = role.removesuffix("?")
        column = columns.get(name) or first_present(names, present)
        if column is not None:
            roles[name] = column
        elif not role.endswith("?"):
            return None
    return roles
