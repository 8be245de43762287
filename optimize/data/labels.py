"""Match a data set's labels to the checkpoint's classes, by name or by number, or refuse.

A checkpoint's `id2label` decides. Names match without regard to case. Numbers are taken as class
ids only where the data set has no names, or where the checkpoint's are the placeholders LABEL_0,
LABEL_1, …: two data sets of the same task often number their classes differently.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from optimize.errors import DataError

Matcher = Callable[[Any, str], Any]
"""Maps a label, or a list of labels, to class ids; the second argument says where it stands."""


def match_labels(table: Any, column: str, config: Mapping[str, Any], *, where: str) -> Matcher:
    """How labels of `column` become class ids of the checkpoint.

    Regression (one output) keeps its numbers; lists are matched element by element.
    """
    if class_count(config) == 1 or config.get("problem_type") == "regression":
        return _number
    names = {int(key): str(name) for key, name in (config.get("id2label") or {}).items()}
    placeholders = not names or all(re.fullmatch(r"LABEL_\d+", name) for name in names.values())
    given = _class_names(table, column)
    if given == [str(index) for index in range(len(given or ()))]:
        given = None
    if given is None or placeholders:
        return _by_name_or_number(names, class_count(config), given if placeholders else None)
    ids = _ids(names)
    unknown = [name for name in given if _known(name, ids) is None]
    if unknown:
        raise DataError(
            f"{where}: label '{unknown[0]}' is not in the checkpoint ({', '.join(names.values())}); "
            "rename the data set's labels, or choose the data set it was trained on"
        )
    translated = [ids[_known(name, ids) or ""] for name in given]
    return lambda value, at: _each(value, lambda one: translated[_index(one, len(translated), at)])


def _ids(names: Mapping[int, str]) -> dict[str, int]:
    """Class ids by name and by the name without case; a name as written goes first."""
    folded = {name.casefold(): index for index, name in names.items()}
    return folded | {name: index for index, name in names.items()}


def _known(name: str, ids: Mapping[str, int]) -> str | None:
    return next((form for form in (name, name.casefold()) if form in ids), None)


def class_count(config: Mapping[str, Any]) -> int:
    """Number of the checkpoint's classes; transformers' default is two."""
    return len(config["id2label"]) if config.get("id2label") else int(config.get("num_labels", 2))


def _class_names(table: Any, column: str) -> list[str] | None:
    """Names that the data set declares for its class numbers, or None."""
    feature = getattr(table, "features", {}).get(column)
    feature = getattr(feature, "feature", feature)
    return getattr(feature, "names", None)


def _by_name_or_number(names: Mapping[int, str], count: int, given: list[str] | None) -> Matcher:
    ids = _ids(names)

    def one(value: Any, at: str) -> int:
        if isinstance(value, str) and (name := _known(value, ids)) is not None:
            return ids[name]
        if isinstance(value, str) and given and value in given:
            return _index(given.index(value), count, at)
        if isinstance(value, str) and not re.fullmatch(r"\d+", value):
            known = ", ".join(names.values()) or f"0 to {count - 1}"
            raise DataError(f"{at}: label '{value}' is not in the checkpoint ({known}); rename it, or check --data")
        return _index(value, count, at)

    return lambda value, at: _each(value, lambda item: one(item, at))


def _index(value: Any, count: int, at: str) -> int:
    if value is None or value == -1:
        raise DataError(f"{at}: has no label; name a labelled split with --certify-on")
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{at}: label '{value}' is no class; check --columns") from error
    if number != float(value) or not 0 <= number < count:
        raise DataError(
            f"{at}: label {value} is not in the checkpoint, which has classes 0 to {count - 1}; check --data"
        )
    return number


def _number(value: Any, at: str) -> Any:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise DataError(f"{at}: '{value}' is no number, and the checkpoint is a regression; check --columns") from error


def _each(value: Any, one: Callable[[Any], int]) -> Any:
    return [one(item) for item in value] if isinstance(value, list) else one(value)
