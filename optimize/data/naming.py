"""The classes of data whose checkpoint has none yet: what a new classifier is to tell apart, and what it calls them.

Names that a data set declares for its class numbers go first. Else names are what the labels say, in the order of the
alphabet, tags by their type; numbers from 0 on stay without names, as transformers leaves them. Lists are several
classes a text, and numbers with fractions are a regression. What occurs anywhere in the column counts, as it does
where labels are matched to a checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from optimize.data.columns import Column
from optimize.data.labels import IGNORED
from optimize.data.layout import Rows
from optimize.data.numbering import TRUTHS, truth_of, whole
from optimize.errors import DataError, shown
from optimize.interfaces import Head

MOST_CLASSES = 1000
"""Of more, labels are texts or ids of rows, as a wrong column has them."""
HIDDEN = ("None", "-1", "-1.0", "'-1'", str(IGNORED))
"""What stands where there is no label."""
OUTSIDE = "O"


def classes_in(tables: Sequence[Rows], head: Head) -> dict[str, Any]:
    """What a config says of classes, off the labels of all tables; nothing for heads that have no classes of their own.

    Raises DataError where nothing can be told apart by the labels.
    """
    if head.labels is None or head.has_choices:
        return {}
    columns = [rows.labels for rows in tables if rows.labels and not rows.labels.hidden]
    where = tables[-1].where
    seen = [value for each in columns for value in each.seen if repr(value) not in HIDDEN]
    if not seen:
        raise DataError(f"{where}: has no labels to learn from; name a column with --columns {head.labels}=…")
    if head.reads == "all tokens":
        return _as_config(_names(columns, seen, where), where)
    if any(each.lengths is not None for each in columns):
        names = _of_hot(columns, seen) or _names(columns, seen, where)
        return {"problem_type": "multi_label_classification", **_as_config(names, where)}
    if not any(each.names for each in columns) and _regresses(seen):
        return {"problem_type": "regression", **_as_config(["LABEL_0"], where, least=1)}
    return {"problem_type": "single_label_classification", **_as_config(_names(columns, seen, where), where)}


def _as_config(names: Sequence[str], where: str, *, least: int = 2) -> dict[str, Any]:
    if len(names) < least:
        raise DataError(f"{where}: every label is {shown(names[0])}; give data with two classes or more")
    return {
        "id2label": {str(number): name for number, name in enumerate(names)},
        "label2id": {name: number for number, name in enumerate(names)},
        "num_labels": len(names),
    }


def _names(columns: Iterable[Column], seen: Sequence[object], where: str) -> list[str]:
    """The classes' names by their ids."""
    for column in columns:
        if column.names:
            return list(column.names)
    if all(isinstance(value, bool) for value in seen):
        return sorted(TRUTHS)
    numbers = {whole(value) for value in seen}
    if None not in numbers:
        counted = sorted(number for number in numbers if number is not None)
        if counted == list(range(len(counted))):
            return [f"LABEL_{number}" for number in counted]
        return list(map(str, counted))
    found = sorted({str(value) for value in seen}, key=_by_type)
    if len(found) > MOST_CLASSES:
        raise DataError(
            f"{where}: has {len(found):,} different labels, such as {shown(found[0])}, and at most {MOST_CLASSES:,} "
            "are told apart; name another column with --columns"
        )
    return found


def _by_type(name: str) -> tuple[bool, str, str]:
    """Outside before all tags, and the tags of a type beside each other; other names by the alphabet."""
    prefix, dash, type_ = name.partition("-")
    return (name != OUTSIDE, type_, prefix) if dash and len(prefix) == 1 else (name != OUTSIDE, name, "")


def _of_hot(columns: Sequence[Column], seen: Sequence[object]) -> list[str]:
    """Classes without names where all lists have one length and hold 0 and 1 alone; none where they are others."""
    lengths = frozenset[int]().union(*(each.lengths or () for each in columns))
    hot = all(truth_of(value, numbers=True) is not None for value in seen)
    if not hot or len(lengths) != 1 or any(each.names for each in columns):
        return []
    return [f"LABEL_{number}" for number in range(*lengths)]


def _regresses(seen: Sequence[object]) -> bool:
    """Whether all labels are numbers, and some of them no whole ones."""
    return all(map(_is_number, seen)) and any(whole(value) is None for value in seen)


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return False
    try:
        return abs(float(value)) < float("inf")
    except ValueError:
        return False
