"""Match a data set's labels to the checkpoint's classes, by name or by number, or refuse.

A checkpoint's `id2label` decides. Names match without regard to case and to the space between words. Numbers are
taken as class ids only where the data set has no names, or where the checkpoint's are the placeholders LABEL_0,
LABEL_1, …: two data sets of the same task often number their classes differently. Where the checkpoint's names are
numbers themselves, such as stars from 1 to 5, a number is a name. What is decided is decided for a column as a whole,
and said in words that the report repeats.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from optimize.data.classes import Classes, Config, classes_of
from optimize.data.columns import Column
from optimize.data.numbering import FEW, class_index, known_as, meaning_of, one_reading, truth_of, whole
from optimize.data.sets import find_splitter, holds_sets, is_multi_hot, parse_multi_hot
from optimize.errors import DataError, shown

Ids = int | float | list[int]
"""A class id, a regression's number, the tags of a sentence, or for several labels 0 or 1 for each class."""
Matcher = Callable[[object], object]
"""Maps a label, or a list of labels, to what a head takes; what it refuses it says without saying where that stands."""
Single = Callable[[object], int]
IGNORED = -100
"""What PyTorch's cross entropy passes over, and so do tags of words that are not to be judged."""


LONGER = {"B": "SUW", "I": "ELM"}
"""Prefixes of tags that IOB's stand for: the one word of an entity begins it, the last one is inside."""


@dataclass(frozen=True)
class Reading:
    """How a column's labels are read, and what a report says of it.

    `classes` are the names that the data set gives classes which the checkpoint only numbers.
    """

    match: Matcher
    words: str
    classes: tuple[str, ...] = ()


def match_labels(column: Column, config: Config) -> Reading:
    """How labels of texts become class ids of the checkpoint: one a text, several a text, or numbers.

    Regression keeps its numbers. Several labels become a list of 0 and 1 for each class. Raises DataError where the
    column as a whole can be read in two ways.
    """
    classes, problem = classes_of(config), config.get("problem_type")
    if problem == "regression":
        return Reading(_number, "numbers")
    if classes.count == 1 and column.lengths is None:
        return _one_output(column, classes, stated=problem is not None)
    silent = problem is None or classes.count == 1
    if problem == "multi_label_classification" or (silent and holds_sets(column, classes)):
        return _sets(column, classes)
    one, words = _single(column, classes)
    return Reading(lambda value: _each(value, one), words)


def match_tags(column: Column, config: Config) -> Reading:
    """How tags of words become class ids of the checkpoint; -100, a word that is not to be judged, stays."""
    classes = classes_of(config)
    given: tuple[str, ...] = ()
    if column.names and classes.placeholders:
        if len(column.names) != classes.count:
            raise DataError(
                f"the data set names {len(column.names)} tags, and the checkpoint has {classes.count} "
                "classes without names, so which is which cannot be known; name them in the checkpoint's id2label"
            )
        given = column.names
    seen = tuple(value for value in column.seen if value != IGNORED)
    longer = _in_longer_schemes(classes)
    used = [name for name in (*seen, *(column.names or ())) if isinstance(name, str) and name in longer]
    if used:
        classes = replace(classes, also=longer)
    one, words = _single(replace(column, seen=seen), classes, shifts=False)
    words += f", in a longer scheme ({used[0]} as {classes.names[longer[used[0]]]})" if used else ""

    def match(value: object) -> Ids:
        return _each(value, lambda tag: IGNORED if tag == IGNORED else one(tag))

    return Reading(match, words, given)


def _in_longer_schemes(classes: Classes) -> dict[str, int]:
    """Tags of BIOES, BILOU and BMES that say in IOB what B and I say; none where a class has such a prefix itself."""
    found = {}
    for index, name in classes.names.items():
        prefix, type_ = name[:1], name[1:]
        if type_.startswith("-") and prefix in "".join(LONGER.values()):
            return {}
        if type_.startswith("-"):
            found.update(dict.fromkeys((f"{longer}{type_}" for longer in LONGER.get(prefix, "")), index))
    return found


def _each(value: object, one: Single) -> int | list[int]:
    return [one(item) for item in value] if isinstance(value, list) else one(value)


def _single(column: Column, classes: Classes, *, shifts: bool = True) -> tuple[Single, str]:
    """What one label means, and that in words."""
    if column.names and not classes.placeholders:
        return _declared(classes, column.names), "names, which the data set declares"
    given = column.names or ()
    meaning, words = meaning_of(column.seen, classes) if shifts and not given else ({}, "")

    def one(value: object) -> int:
        if (found := known_as(value, classes)) is not None:
            return found
        if isinstance(value, str) and value in given:
            return class_index(given.index(value), classes.count)
        number = whole(value)
        if number is None and isinstance(value, str):
            remedy = "name the classes in the checkpoint's id2label" if classes.placeholders else "rename it"
            raise DataError(
                f"label {shown(value)} is not in the checkpoint ({classes.listed()}); {remedy}, or check --data"
            )
        if number is not None and number in meaning:
            return meaning[number]
        if number is None or number not in classes.numbers:
            number = class_index(value, classes.count)
        return one_reading(number, classes) if classes.numbers else number

    return one, words or _words(column, classes)


def _declared(classes: Classes, given: tuple[str, ...]) -> Single:
    """The data set's own class numbers as the checkpoint's, by their names; refuses a name it does not have."""
    translated = []
    for name in given:
        known = classes.known(name)
        if known is None:
            raise DataError(
                f"label '{name}' is not in the checkpoint ({classes.listed()}); "
                "rename the data set's labels, or choose the data set it was trained on"
            )
        translated.append(known)
    return lambda value: translated[class_index(value, len(translated))]


def _words(column: Column, classes: Classes) -> str:
    """What the labels of a column are, where each means what it says."""
    kinds = []
    named = "" if classes.placeholders or classes.count > FEW else f" ({classes.listed()})"
    if any(isinstance(value, str) and classes.has(value) for value in column.seen):
        kinds.append("names")
    if any(truth_of(value) is not None and not classes.has(str(value)) for value in column.seen):
        kinds.append(f"true and false as classes {known_as(True, classes)} and {known_as(False, classes)}{named}")
    if any(whole(value) is not None and not classes.has(str(value)) for value in column.seen):
        kinds.append("class ids, which the data set names in this order" if column.names else f"class ids{named}")
    elif any(not isinstance(value, str) and classes.has(str(whole(value))) for value in column.seen):
        kinds.append("numbers that are names of classes")
    return " and ".join(kinds) or "none"


def _sets(column: Column, classes: Classes) -> Reading:
    """Several labels a text, as a list of 0 and 1 for each class."""
    splitter = find_splitter(classes)
    parted = column if column.lengths is not None else splitter.part(column)
    if is_multi_hot(parted, classes):
        words = "0 or 1 for each class, in lists"
        return Reading(lambda value: parse_multi_hot(splitter.items(value), classes.count), words)
    one, words = _single(parted, classes)

    def match(value: object) -> Ids:
        hot = [0] * classes.count
        for item in splitter.items(value):
            hot[one(item)] = 1
        return hot

    how = "in lists" if column.lengths is not None else splitter.words
    return Reading(match, f"{words}, several a text, {how}")


def _one_output(column: Column, classes: Classes, *, stated: bool) -> Reading:
    """One output: a class that a text has or has not, decided at a sigmoid of 0.5, or a number.

    transformers takes one output for a regression where the config states no `problem_type`, and states it in what it
    trains itself. So labels that are all 0 and 1 beside a config that is silent are classes, as where a model was
    trained with a loss of its own.
    """
    truths = {truth_of(value, numbers=True) for value in column.seen}
    if not stated and truths != {False, True} and not (column.names and len(column.names) == 2):
        return Reading(_number, "numbers")

    def match(value: object) -> Ids:
        truth = truth_of(value, numbers=True)
        if truth is None and isinstance(value, str):
            truth = True if known_as(value, classes) is not None else _truth_among(value, column.names)
        if truth is None:
            class_index(value, 2)
            raise DataError(f"label {shown(value)} is neither 0 nor 1, and the checkpoint has one output; check --data")
        return [int(truth)]

    words = "0 or 1, for one output: 1 where its sigmoid is above 0.5"
    silent = "the config has no problem_type; with 'regression' there they would be numbers"
    return Reading(match, words if stated else f"{words} ({silent})")


def _truth_among(value: str, names: tuple[str, ...] | None) -> bool | None:
    return bool(names.index(value)) if names and len(names) == 2 and value in names else None


def _number(value: object) -> float:
    try:
        number = float(value) if isinstance(value, int | float | str) else math.nan
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        what = f"{shown(value)} is not a number, and the checkpoint is a regression"
        raise DataError(f"{what}; check --columns")
    return number
