"""What numbers and truths mean as labels: a class's id, its name, or its place counted otherwise."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from optimize.data.classes import Classes
from optimize.errors import DataError, shown

NUMBER = re.compile(r"\s*[+-]?\d{1,18}(\.0*)?\s*")
TRUTHS = {"true": True, "false": False}
SIGNS = {-1: "negative", 0: "neutral", 1: "positive"}
"""What such labels are called."""
FEW = 10
"""Classes that are named in words; of more, their names would say little."""
Meaning = Mapping[int, int]
"""Class ids by numbers that are no class ids."""


def whole(value: object) -> int | None:
    """A number, or text that is one, as a whole number; None where it is none."""
    if isinstance(value, str) and not NUMBER.fullmatch(value):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = int(float(value)) if isinstance(value, float | str) else value
        return number if number == float(value) else None
    except (ValueError, OverflowError):
        return None


def truth_of(value: object, *, numbers: bool = False) -> bool | None:
    """True or false, as such or as text; with `numbers`, also 1 or 0."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().casefold() in TRUTHS:
        return TRUTHS[value.strip().casefold()]
    number = whole(value) if numbers else None
    return bool(number) if number in (0, 1) else None


def known_as(value: object, classes: Classes) -> int | None:
    """The class that a text names, or a truth; None for any other value.

    True is the class "true" or "yes", else the second of two.
    """
    if isinstance(value, str) and (found := classes.known(value)) is not None:
        return found
    truth = truth_of(value)
    if truth is None:
        return None
    for name in (str(truth), "yes" if truth else "no"):
        if (found := classes.known(name)) is not None:
            return found
    if classes.count == 2:
        return int(truth)
    raise DataError(
        f"label {shown(value)} is true or false, and the checkpoint has {classes.count} classes "
        f"({classes.listed()}); check --columns"
    )


def class_index(value: object, count: int) -> int:
    """A label as a class id below `count`, or a refusal."""
    if value is None or value == -1:  # -1 is how GLUE marks the rows whose labels it keeps secret
        raise DataError("has no label; name a labelled split with --certify-on")
    number = whole(value)
    if number is None and not isinstance(value, float | int | str):
        raise DataError(f"label {shown(value)} is not a class; check --columns")
    if number is None or not 0 <= number < count:
        raise DataError(
            f"label {shown(value)} is not in the checkpoint, which has classes 0 to {count - 1}; check --data"
        )
    return number


def one_reading(number: int, classes: Classes) -> int:
    """The class that a number means: of that name, or at that place; refuses one that may be either."""
    numbers, names = classes.numbers, classes.names
    named, by_place = numbers.get(number), names.get(number)
    all_numbered = len(numbers) == len(names)
    if named is None and not all_numbered:
        return number
    if named is None:
        raise DataError(
            f"label {number} is none of the checkpoint's class names ({classes.listed()}), and by its "
            f"place would be '{by_place}'; write class names as labels, or check --data"
        )
    if all_numbered or by_place is None or named == number:
        return named
    raise DataError(
        f"label {number} is the name of class {named} and the place of '{by_place}'; write class names as "
        "labels, as text"
    )


def meaning_of(seen: Sequence[object], classes: Classes) -> tuple[Meaning, str]:
    """What a column's numbers mean where they are no class ids, in words too; nothing where they are.

    They are none where each class has its number, and these are signs or are counted from one, and where the classes'
    names count them from one. Raises DataError where all but the ends occur, by which one would tell.
    """
    found = {number for value in seen if (number := whole(value)) is not None}
    if classes.numbers or any(classes.has(str(number)) for number in found):
        return {}, ""
    if len(found) == classes.count and found in ({-1, 1}, {-1, 0, 1}):
        return _signs(sorted(found), classes)
    found.discard(-1)
    if classes.count < 2 or not found or min(found) < 1 or max(found) > classes.count:
        return {}, ""
    last = classes.count
    if len(found) == last or classes.count_from_one:
        return {number: number - 1 for number in range(1, last + 1)}, _counted(classes)
    if last not in found and len(found) == last - 1 > 1:
        raise DataError(
            f"labels are 1 to {last - 1}, and the checkpoint has {last} classes ({classes.listed()}), so they may be "
            "counted from 0 or from 1; write class names as labels"
        )
    return {}, ""


def _signs(found: Sequence[int], classes: Classes) -> tuple[Meaning, str]:
    """-1, 0 and 1 as negative, neutral and positive, or in their order as classes without names."""
    words = ", ".join(map(str, found))
    if classes.placeholders:
        return {number: index for index, number in enumerate(found)}, f"{words} as classes 0 to {classes.count - 1}"
    named = {number: index for number in found if (index := classes.known(SIGNS[number])) is not None}
    if len(named) < len(found):
        return {}, ""
    return named, f"{words} as {', '.join(classes.names[named[number]] for number in found)}"


def _counted(classes: Classes) -> str:
    words = f"1 to {classes.count} as classes 0 to {classes.count - 1}"
    return words if classes.placeholders or classes.count > FEW else f"{words} ({classes.listed()})"
