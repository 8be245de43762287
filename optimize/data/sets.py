"""Several labels of one text: in lists, as 0 or 1 for each class, or in one string that separates them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from optimize.data.classes import Classes
from optimize.data.columns import Column
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


def is_multi_hot(column: Column, classes: Classes, splitter: Splitter) -> bool:
    """Whether all rows are lists as long as there are classes, of 0 and 1 alone.

    A row may also be empty, and means no class, where there are so many classes that a list of ids would repeat one.
    """
    if column.names:
        return False
    lengths, seen = column.lengths, column.seen
    if lengths is None:
        rows = [splitter.parts(value) for value in seen if isinstance(value, str)]
        if len(rows) < len(seen):
            return False
        lengths, seen = frozenset(map(len, rows)), _flat(rows)
    least = {0, classes.count} if classes.count > 2 else {classes.count}
    return classes.count in lengths and lengths <= least and all(_is_hot(value) for value in seen)


def _flat(rows: Iterable[Sequence[str]]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for row in rows:
        found.update(dict.fromkeys(row))
    return tuple(found)


def _is_hot(value: object) -> bool:
    return truth_of(value, numbers=True) is not None


def parse_multi_hot(items: Sequence[object], count: int) -> list[int]:
    """0 or 1 for each class, from a list of such or an empty one."""
    if len(items) not in (0, count) or not all(map(_is_hot, items)):
        raise DataError(f"label {shown(items)} is not a list of {count} times 0 or 1; check --columns")
    return [int(bool(truth_of(value, numbers=True))) for value in items] or [0] * count
