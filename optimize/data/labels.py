"""Match a data set's labels to the checkpoint's classes, by name or by number, or refuse.

A checkpoint's `id2label` decides. Names match without regard to case. Numbers are taken as class
ids only where the data set has no names, or where the checkpoint's are the placeholders LABEL_0,
LABEL_1, …: two data sets of the same task often number their classes differently. Where the
checkpoint's names are numbers themselves, such as stars from 1 to 5, a number is a name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from optimize.errors import DataError, shown

if TYPE_CHECKING:
    from optimize.data.read import Table

Config = Mapping[str, Any]
"""A checkpoint's config.json."""
Ids = int | float | list[int]
"""A class id, a regression's number, or the class ids of a multi-label row."""
Matcher = Callable[[object], Ids]
"""Maps a label, or a list of labels, to class ids; what it refuses it says without saying where that stands."""


def match_labels(table: Table, column: str, config: Config, *, where: str) -> Matcher:
    """How labels of `column` become class ids of the checkpoint.

    Regression (one output) keeps its numbers; lists are matched element by element.
    """
    if class_count(config) == 1 or config.get("problem_type") == "regression":
        return _number
    names = {int(key): str(name) for key, name in (config.get("id2label") or {}).items()}
    placeholders = not names or all(re.fullmatch(r"LABEL_\d+", name) for name in names.values())
    given = _class_names(table, column)
    # Names that only repeat the numbers ("0", "1", ...) say nothing that the numbers do not.
    if given == list(map(str, range(len(given or ())))):
        given = None
    if given is None or placeholders:
        return _by_name_or_number(names, class_count(config), given if placeholders else None)
    return _by_declared_class(given, names, where)


def _by_declared_class(given: list[str], names: Mapping[int, str], where: str) -> Matcher:
    """The data set's own class numbers as the checkpoint's, by their names; refuses a name it does not have."""
    ids = _ids(names)
    translated = []
    for name in given:
        known = _known(name, ids)
        if known is None:
            raise DataError(
                f"{where}: label '{name}' is not in the checkpoint ({', '.join(names.values())}); "
                "rename the data set's labels, or choose the data set it was trained on"
            )
        translated.append(known)
    return lambda value: _each(value, lambda one: translated[_index(one, len(translated))])


def _ids(names: Mapping[int, str]) -> dict[str, int]:
    """Class ids by name and by the name without case; a name as written goes first."""
    exact = {name: index for index, name in names.items()}
    return {name.casefold(): index for name, index in exact.items()} | exact


def _known(name: str, ids: Mapping[str, int]) -> int | None:
    return ids.get(name, ids.get(name.casefold()))


def class_count(config: Config) -> int:
    """Number of the checkpoint's classes; transformers' default is two."""
    return len(config["id2label"]) if config.get("id2label") else int(config.get("num_labels", 2))


def _class_names(table: Table, column: str) -> list[str] | None:
    """Names that the data set declares for its class numbers, or None."""
    feature = getattr(table, "features", {}).get(column)
    # A list of labels declares its class names one level down.
    feature = getattr(feature, "feature", feature)
    return getattr(feature, "names", None)


def _by_name_or_number(names: Mapping[int, str], count: int, given: list[str] | None) -> Matcher:
    ids, numbers = _ids(names), _numbers(names)

    def one(value: object) -> int:
        if isinstance(value, str | bool) and (known := _known(str(value), ids)) is not None:
            return known
        if isinstance(value, str) and given and value in given:
            return _index(given.index(value), count)
        if isinstance(value, str) and not re.fullmatch(r"\d+", value):
            classes = ", ".join(names.values()) or f"0 to {count - 1}"
            raise DataError(f"label {shown(value)} is not in the checkpoint ({classes}); rename it, or check --data")
        number = _whole(value)
        if number is None or number not in numbers:
            number = _index(value, count)
        return _one_reading(number, numbers, names) if numbers else number

    return lambda value: _each(value, one)


def _numbers(names: Mapping[int, str]) -> dict[int, int]:
    """Class ids by the numbers that are their names; none where each name is its class's own number, or no number."""
    found = {int(name): index for index, name in names.items() if re.fullmatch(r"[+-]?\d{1,9}", name)}
    return {} if all(number == index for number, index in found.items()) else found


def _one_reading(number: int, numbers: Mapping[int, int], names: Mapping[int, str]) -> int:
    """The class that a number means: of that name, or at that place; refuses one that may be either."""
    named, by_place = numbers.get(number), names.get(number)
    all_numbered = len(numbers) == len(names)
    if named is None and not all_numbered:
        return number
    if named is None:
        raise DataError(
            f"label {number} is none of the checkpoint's class names ({', '.join(names.values())}), and by its "
            f"place would be '{by_place}'; write class names as labels, or check --data"
        )
    if all_numbered or by_place is None or named == number:
        return named
    raise DataError(
        f"label {number} is the name of class {named} and the place of '{by_place}'; write class names as "
        "labels, as text"
    )


def _whole(value: Any) -> int | None:
    """A value as a whole number, or None where it is none."""
    try:
        number = int(value)
        return number if number == float(value) else None
    except (TypeError, ValueError, OverflowError):
        return None


def _index(value: Any, count: int) -> int:
    if value is None or value == -1:  # -1 is how GLUE marks the rows whose labels it keeps secret
        raise DataError("has no label; name a labelled split with --certify-on")
    number = _whole(value)
    if number is None and not isinstance(value, float | int | str):
        raise DataError(f"label {shown(value)} is not a class; check --columns")
    if number is None or not 0 <= number < count:
        raise DataError(
            f"label {shown(value)} is not in the checkpoint, which has classes 0 to {count - 1}; check --data"
        )
    return number


def _number(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        what = f"{shown(value)} is not a number, and the checkpoint is a regression"
        raise DataError(f"{what}; check --columns")
    return number


def _each(value: object, one: Callable[[object], int]) -> int | list[int]:
    return [one(item) for item in value] if isinstance(value, list) else one(value)
