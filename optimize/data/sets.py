"""Several labels of one text: in lists, as 0 or 1 for each class, or in one string that separates them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from optimize.data.classes import Classes
from optimize.data.columns import Column, values_of_rows
from optimize.data.numbering import truth_of
from optimize.errors import DataError, shown

SEPARATORS = ",;|"
QUOTES = "'\""


@dataclass(frozen=True)
class Splitter:
    """What separates labels in a string: such characters as no class has in its name."""

    classes: Classes
    separators: str

    @property
    def words(self) -> str:
        """How labels are separated, in words."""
        return f"separated by {' or '.join(self.separators)}" if self.separators else "one in a string"

    def parts(self, text: str) -> list[str]:
        """The labels in a string, of which there may be none; a list as programs print it is read as well."""
        inner = text.strip()
        if self.classes.has(inner) or not inner:
            return [inner] if inner else []
        if inner[0] + inner[-1] == "[]":
            inner = inner[1:-1].strip()
        found = re.split(f"[{re.escape(self.separators)}]", inner) if self.separators else [inner]
        return [part.strip().strip(QUOTES) for part in found] if inner else []

    def items(self, value: object) -> list[object]:
        """The labels of a row: of a list, of a string, or the one that is there."""
        if isinstance(value, list):
            return value
        return [*self.parts(value)] if isinstance(value, str) else [value]

    def part(self, column: Column) -> Column:
        """A column of such rows as one of lists."""
        rows = [self.items(value) for value in column.seen]
        seen, lengths = values_of_rows(rows)
        return replace(column, seen=seen, lengths=lengths)


def find_splitter(classes: Classes) -> Splitter:
    """What may separate these classes' names."""
    names = "".join(classes.names.values())
    return Splitter(classes, "".join(sign for sign in SEPARATORS if sign not in names))


def holds_sets(column: Column, classes: Classes) -> bool:
    """Whether a column has several labels a text, where the checkpoint does not say: lists, or strings of classes."""
    if column.lengths is not None:
        return True
    splitter = find_splitter(classes)
    for value in column.seen:
        if isinstance(value, str) and len(parts := splitter.parts(value)) > 1 and all(map(classes.has, parts)):
            return True
    return False


def is_multi_hot(column: Column, classes: Classes) -> bool:
    """Whether all rows are lists as long as there are classes, of 0 and 1 alone.

    A row may also be empty, and means no class, where there are so many classes that a list of ids would repeat one.
    """
    lengths = column.lengths or frozenset()
    least = {0, classes.count} if classes.count > 2 else {classes.count}
    return not column.names and classes.count in lengths and lengths <= least and all(map(_is_hot, column.seen))


def _is_hot(value: object) -> bool:
    return truth_of(value, numbers=True) is not None


def parse_multi_hot(items: Sequence[object], count: int) -> list[int]:
    """0 or 1 for each class, from a list of such or an empty one."""
    if len(items) not in (0, count) or not all(map(_is_hot, items)):
        raise DataError(f"label {shown(items)} is not a list of {count} times 0 or 1; check --columns")
    return [int(bool(truth_of(value, numbers=True))) for value in items] or [0] * count
