"""A checkpoint's classes, and which of them a name or a number means."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from optimize.errors import DataError, shown

Config = Mapping[str, Any]
"""A checkpoint's config.json."""
PLACEHOLDER = re.compile(r"LABEL_\d+")
"""What transformers calls a class that nobody named."""
BETWEEN_WORDS = re.compile(r"(?<=[^\W_])[-_\s]+(?=[^\W_])")
"""Hyphens, underscores and spaces within a name; the one before a negative number is no such."""


@dataclass(frozen=True)
class Classes:
    """The classes by their ids: their names, where they have any, and how many there are.

    `also` are further names, with the ids that they mean.
    """

    names: Mapping[int, str]
    count: int
    also: Mapping[str, int] = field(default_factory=dict)

    @property
    def placeholders(self) -> bool:
        """Whether the names say nothing: there are none, or they are LABEL_0, LABEL_1, …."""
        return all(PLACEHOLDER.fullmatch(name) for name in self.names.values())

    @cached_property
    def _spelt(self) -> tuple[tuple[Callable[[str], str], Mapping[str, list[int]]], ...]:
        named = [(name, index) for index, name in self.names.items()] + list(self.also.items())
        return tuple((spelling, _by_name(named, spelling)) for spelling in (str, alike))

    def known(self, name: str) -> int | None:
        """The class of that name: as it is written, else without regard to case, spaces, `-` and `_`.

        None where there is no such class. Raises DataError where several classes are written alike.
        """
        for spelling, ids in self._spelt:
            found = ids.get(spelling(name), [])
            if len(found) > 1:
                meant = " or ".join(f"{index} ('{self.names[index]}')" for index in found)
                raise DataError(f"label {shown(name)} may be class {meant}; write it as the checkpoint does")
            if found:
                return found[0]
        return None

    def has(self, name: str) -> bool:
        """Whether a class has that name, or several have it."""
        return any(spelling(name) in ids for spelling, ids in self._spelt)

    @cached_property
    def numbers(self) -> Mapping[int, int]:
        """Class ids by the numbers that are their names; none where each name is its class's own number, or none is."""
        found = {int(name): index for index, name in self.names.items() if re.fullmatch(r"[+-]?\d{1,9}", name)}
        return {} if all(number == index for number, index in found.items()) else found

    @cached_property
    def count_from_one(self) -> bool:
        """Whether the names count the classes from one, as "1 star", "2 stars", … do."""
        return all(re.findall(r"\d+", self.names.get(index, "")) == [str(index + 1)] for index in range(self.count))

    def listed(self) -> str:
        """The names, or where there are none the ids."""
        return ", ".join(self.names.values()) or f"0 to {self.count - 1}"


def _by_name(named: Iterable[tuple[str, int]], spelling: Callable[[str], str]) -> dict[str, list[int]]:
    """Class ids by name."""
    found: dict[str, list[int]] = {}
    for name, index in named:
        found.setdefault(spelling(name), []).append(index)
    return found


def alike(name: str) -> str:
    """What names have in common that people would call the same: "Not_Spam " and "not spam"."""
    return BETWEEN_WORDS.sub(" ", unicodedata.normalize("NFKC", name).strip()).casefold()


def classes_of(config: Config) -> Classes:
    """The classes that a checkpoint's config names, or only counts; transformers' default is two."""
    names = {int(key): str(name) for key, name in (config.get("id2label") or {}).items()}
    return Classes(names, len(names) or int(config.get("num_labels") or 2))
