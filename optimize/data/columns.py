"""A data set's column of labels as a whole: the names that it declares, and the values that occur anywhere in it.

What labels mean is decided from all of them: 1 to 5 are five classes, and of a sample without a 5 nobody could tell.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optimize.errors import shown

if TYPE_CHECKING:
    import pyarrow

    from optimize.data.read import Table

MOST_VALUES = 10_000
"""Different values of a column that are looked at; no classifier has as many classes."""


@dataclass(frozen=True)
class Column:
    """Labels: `names` are declared for their numbers, `seen` are the values, of lists those in them.

    `lengths` are those of the lists; None where labels are no lists.
    """

    names: tuple[str, ...] | None
    seen: tuple[object, ...]
    lengths: frozenset[int] | None

    @property
    def hidden(self) -> bool:
        """Whether nothing but -1 occurs, by which GLUE marks labels that it keeps secret."""
        return set(map(repr, self.seen)) <= {"-1", "-1.0", "'-1'"}


def read_column(table: Table, name: str) -> Column:
    """The column of that name, all rows of it."""
    names = _declared(table, name)
    if isinstance(table, list):
        seen, lengths = values_of_rows(row[name] for row in table)
    else:
        seen, lengths = _of_arrow(table.data.column(name))
    return Column(names, seen, lengths)


def _declared(table: Table, name: str) -> tuple[str, ...] | None:
    """Names that the data set declares for its class numbers, or None."""
    feature = getattr(table, "features", {}).get(name)
    # A list of labels declares its class names one level down.
    feature = getattr(feature, "feature", feature)
    names = getattr(feature, "names", None)
    # Names that only repeat the numbers ("0", "1", ...) say nothing that the numbers do not.
    return None if names is None or names == list(map(str, range(len(names)))) else tuple(names)


def values_of_rows(values: Iterable[Any]) -> tuple[tuple[object, ...], frozenset[int] | None]:
    """Different values in rows of Python, and the lengths of lists."""
    seen: dict[tuple[str, str], object] = {}
    lengths: set[int] = set()
    for value in values:
        items = value if isinstance(value, list) else [value]
        if isinstance(value, list):
            lengths.add(len(value))
        for item in items:
            if len(seen) < MOST_VALUES:
                # By its type too: 1, True and 1.0 are equal, and not the same.
                seen.setdefault((type(item).__name__, item if isinstance(item, str) else shown(item)), item)
    return tuple(seen.values()), frozenset(lengths) or None


def _of_arrow(values: pyarrow.ChunkedArray) -> tuple[tuple[object, ...], frozenset[int] | None]:
    """The same of a table in Arrow, whose rows stay where they are."""
    import pyarrow
    from pyarrow import compute

    lengths = None
    if _is_list(values.type):
        lengths = frozenset(compute.unique(compute.list_value_length(values)).to_pylist()) - {None}
        values = compute.list_flatten(values)
    # What is nested still, such as lists of lists or mappings, is no label, as each row's refusal says.
    if pyarrow.types.is_nested(values.type):
        return (), lengths
    return tuple(compute.unique(values)[:MOST_VALUES].to_pylist()), lengths


def _is_list(kind: pyarrow.DataType) -> bool:
    import pyarrow

    return any(
        check(kind) for check in (pyarrow.types.is_list, pyarrow.types.is_large_list, pyarrow.types.is_fixed_size_list)
    )
