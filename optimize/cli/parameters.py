"""Parameters as one would say them to somebody who writes YAML: type, bounds, default and meaning, off their fields."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

WORDS: dict[Any, str] = {
    int: "whole number",
    float: "number",
    str: "text",
    Path: "path",
    Any: "anything",
    object: "anything",
}
MOST_KINDS = 3
"""What may be of more kinds than these is called values."""
NOT_SET = "not set"
BOUNDS = {"ge": "≥ {}", "gt": "> {}", "le": "≤ {}", "lt": "< {}", "min_length": "at least {}"}


@dataclass(frozen=True)
class Parameter:
    """One parameter; `default` is as YAML says it, None where there is none. `fields` are those of a mapping in it."""

    name: str
    type: str
    bounds: tuple[str, ...]
    default: str | None
    meaning: str
    fields: tuple[Parameter, ...] = ()


def parameters_of(model: type[BaseModel]) -> list[Parameter]:
    """The parameters of a closed model, in order."""
    return [_parameter(name, field) for name, field in model.model_fields.items()]


def _parameter(name: str, field: FieldInfo) -> Parameter:
    return Parameter(
        name=name,
        type=type_words(field.annotation),
        bounds=bounds_of(field),
        default=None if field.is_required() else default_of(field),
        meaning=field.description or "",
        fields=tuple(each for model in models_in(field.annotation) for each in parameters_of(model)),
    )


def type_words(
    annotation: Any, value: Callable[[str], str] = str, record: Callable[[type], str] = lambda _: "mapping"
) -> str:
    """A type in words; `value` marks a value that is written as it is, `record` names a class that has fields."""
    kinds = _kinds(annotation, value, record)
    is_listed = len(kinds) <= MOST_KINDS or all(map(_is_choice, _parts(annotation)))
    return _or(kinds) if is_listed else "values"


def _kinds(annotation: Any, value: Callable[[str], str], record: Callable[[type], str]) -> list[str]:
    """What a value of this type may be, each in words."""
    if _is_choice(annotation):
        choices = ("true", "false") if annotation is bool else map(str, typing.get_args(annotation))
        return [value(each) for each in choices]
    parts = _parts(annotation)
    if parts != [annotation]:
        return [words for part in parts for words in _kinds(part, value, record)]
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (tuple, list, Sequence):
        # tuple[int, ...] is a list of any length, tuple[int, int] is two of them
        kinds = dict.fromkeys(_plural(type_words(each, value, record)) for each in inner if each is not Ellipsis)
        pair = origin is tuple and Ellipsis not in inner
        return [f"{'two' if pair else 'list of'} {' or '.join(kinds)}"]
    if origin in (dict, Mapping):
        return [f"mapping to {type_words(inner[1], value, record)}"]
    return [WORDS[annotation] if annotation in WORDS else record(annotation)]


def _parts(annotation: Any) -> list[Any]:
    """A union's types without None, which is said of the default and written by nobody; any other type by itself."""
    if typing.get_origin(annotation) is typing.Annotated:
        return _parts(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [part for each in typing.get_args(annotation) if each is not type(None) for part in _parts(each)]
    return [annotation]


def _is_choice(annotation: Any) -> bool:
    return annotation is bool or typing.get_origin(annotation) is typing.Literal


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """Models of parameters within a parameter."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for each in typing.get_args(annotation) for found in models_in(each)]


def bounds_of(field: FieldInfo) -> tuple[str, ...]:
    """What the values of a field must keep to."""
    found = []
    for constraint in field.metadata:
        # annotated_types has a class a bound, with one attribute of that name
        for name, words in BOUNDS.items():
            if hasattr(constraint, name):
                found.append(words.format(f"{getattr(constraint, name):g}"))
    return tuple(found)


def default_of(field: FieldInfo) -> str:
    """A default as YAML would say it."""
    value = field.get_default(call_default_factory=True)
    if value is None:
        return NOT_SET
    if isinstance(value, float):
        # Python writes 1e-05, which YAML 1.1 takes for text
        return format(Decimal(repr(value)).normalize(), "f")
    return as_yaml(value)


def as_yaml(value: object) -> str:
    """A value as YAML has it, on one line."""
    from optimize.request import write_setting

    if isinstance(value, tuple | list):
        value = [each.model_dump(exclude_unset=True) if isinstance(each, BaseModel) else each for each in value]
    return write_setting(str(value) if isinstance(value, Path) else value)


def _plural(words: str) -> str:
    return f"{words}s" if words in WORDS.values() else words


def _or(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
