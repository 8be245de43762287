"""Match a data set's labels to the checkpoint's classes, by name or by number, or refuse.

A checkpoint's `id2label` decides. Names match without regard to case. Numbers are taken as class
ids only where the data set has no names, or where the checkpoint's are the placeholders LABEL_0,
LABEL_1, …: two data sets of the same task often number their classes differently.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from optimize.errors import DataError

if TYPE_CHECKING:
    from optimize.data.read import Table

Config = Mapping[str, Any]
"""A checkpoint's config.json."""
Ids = int | float | list[int]
"""A class id, a regression's number, or the class ids of a multi-label row."""
Matcher = Callable[[object, str], Ids]
"""Maps a label, or a list of labels, to class ids; the second argument says where it stands."""


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
    return lambda value, at: _each(value, lambda one: translated[_index(one, len(translated), at)])


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
    ids = _ids(names)

    def one(value: object, at: str) -> int:
        if isinstance(value, str) and (known := _known(value, ids)) is not None:
            return known
        if isinstance(value, str) and given and value in given:
            return _index(given.index(value), count, at)
        if isinstance(value, str) and not re.fullmatch(r"\d+", value):
            classes = ", ".join(names.values()) or f"0 to {count - 1}"
            raise DataError(f"{at}: label '{value}' is not in the checkpoint ({classes}); rename it, or check --data")
        return _index(value, count, at)

    return lambda value, at: _each(value, lambda item: one(item, at))


def _index(value: Any, count: int, at: str) -> int:
    if value is None or value == -1:  # -1 is how GLUE marks the rows whose labels it keeps secret
        raise DataError(f"{at}: has no label; name a labelled split with --certify-on")
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{at}: label '{value}' is not a class; check --columns") from error
    if number != float(value) or not 0 <= number < count:
        raise DataError(
            f"{at}: label {value} is not in the checkpoint, which has classes 0 to {count - 1}; check --data"
        )
    return number


def _number(value: Any, at: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        what = f"'{value}' is not a number, and the checkpoint is a regression"
        raise DataError(f"{at}: {what}; check --columns") from error


def _each(value: object, one: Callable[[object], int]) -> int | list[int]:
    return [one(item) for item in value] if isinstance(value, list) else one(value)
