"""Which choice is the right one: by the choices' own names, by letters, or by numbers, counted from 0 or from 1."""

from __future__ import annotations

from collections.abc import Mapping

from optimize.data.columns import Column
from optimize.data.labels import Reading
from optimize.data.numbering import whole
from optimize.errors import DataError
from optimize.interfaces import Row


def match_choices(column: Column, first: Row) -> Reading:
    """How labels become indices of choices, of which the first row tells how many there are; letters stay.

    Raises DataError where numbers may be counted from 0 or from 1.
    """
    if isinstance(first.get("choices"), Mapping) and "label" in first["choices"]:
        return Reading(_as_it_is, "names of the choices")
    count = _count(first)
    found = {number for value in column.seen if (number := whole(value)) is not None and number != -1}
    if not found:
        return Reading(_as_it_is, "letters of the choices")
    if min(found) != 1 or max(found) > count:
        return Reading(_as_it_is, "choices counted from 0")
    if len(found) == count:
        return Reading(_from_one, f"1 to {count} as choices 0 to {count - 1}")
    if count not in found and len(found) == count - 1 > 1:
        raise DataError(
            f"labels are 1 to {count - 1} for {count} choices, so they may be counted from 0 or from "
            "1; write letters as labels"
        )
    return Reading(_as_it_is, "choices counted from 0")


def _count(row: Row) -> int:
    """How many choices a row has."""
    listed = row.get("choices")
    if isinstance(listed, Mapping):
        listed = listed.get("text")
    columns = [role for role, value in row.items() if role.startswith("choice") and value is not None]
    return len(listed) if isinstance(listed, list) else len(columns)


def _as_it_is(value: object) -> object:
    return value


def _from_one(value: object) -> object:
    number = whole(value)
    return value if number is None else number - 1
