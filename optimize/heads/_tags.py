"""Schemes of tags, and the entities that they spell.

Entities are counted as conlleval and seqeval's default (Nakayama, 2018) count them, which takes every scheme as it
comes: an entity that a scheme would have begin otherwise is an entity. Schemes that call the same otherwise are read
in the words of IOB and BIOES. Classes without a prefix beside an "O" are entities as long as they run, which is how
transformers' pipelines group them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

TAG = re.compile(r"([BIESLUMW])[-_](.+)", re.IGNORECASE)
OUTSIDE = "O"
PREFIXES = {"IOB": "BI", "IOE": "IE", "BIOES": "BIES", "BILOU": "BILU", "BMES": "BMES", "BMEWO": "BMEW"}
"""The schemes, in the order in which they are tried, and the prefixes of each."""
AS_BIOES = str.maketrans("LUMW", "ESIS")


@dataclass(frozen=True)
class Scheme:
    """How classes spell entities: the scheme's name, and each class as a tag of IOB or BIOES."""

    name: str
    tags: tuple[str, ...]

    @property
    def types(self) -> tuple[str, ...]:
        """The types of entities, in the order of the classes."""
        return tuple(dict.fromkeys(tag[2:] for tag in self.tags if tag != OUTSIDE))


def scheme_of(classes: Sequence[str]) -> Scheme | None:
    """The scheme of classes; None where they are no entities, such as parts of speech."""
    matches = [TAG.fullmatch(name) for name in classes]
    outside = [name.upper() == OUTSIDE for name in classes]
    prefixes = "".join(sorted({match[1].upper() for match in matches if match}))
    scheme = next((name for name, known in PREFIXES.items() if set(prefixes) <= set(known)), None)
    plain = any(not match and not out for match, out in zip(matches, outside, strict=True))
    if scheme is None or all(outside) or (plain and not any(outside)):
        return None
    tags = []
    for name, match, out in zip(classes, matches, outside, strict=True):
        if out:
            tags.append(OUTSIDE)
        else:
            tags.append(f"{match[1].upper().translate(AS_BIOES)}-{match[2]}" if match else f"I-{name}")
    if plain:
        scheme = f"{scheme}, and classes without a prefix as long as they run" if prefixes else "classes as they run"
    return Scheme(scheme, tuple(tags))


def in_words(scheme: Scheme | None, sentences: Iterable[Sequence[str]]) -> str:
    """What is scored, and by which scheme; of IOB, sentences of tags tell which of the two it is."""
    if scheme is None:
        return "no entities among the classes, so words are scored"
    name = scheme.name
    if name == "IOB":
        name = "IOB1" if _begin_inside(sentences) else "IOB2"
    return f"{name}, entities counted as conlleval and seqeval's default do"


def _begin_inside(sentences: Iterable[Sequence[str]]) -> bool:
    """Whether more entities begin with I than with B; of some, that is a slip."""
    begun = {"B": 0, "I": 0}
    for tags in sentences:
        for last, tag in zip([OUTSIDE, *tags], tags, strict=False):
            if tag[0] == "B" or (tag[0] == "I" and last[2:] != tag[2:]):
                begun[tag[0]] += 1
    return begun["I"] > begun["B"]


def entities(tags: Iterable[str]) -> set[tuple[str, int, int]]:
    """Return (type, first word, word after the last) of each entity in IOB1, IOB2 or IOBES tags.

    An entity goes on with I or E of the same type after B or I; anything else but O begins one.
    """
    found = set()
    start, last = 0, OUTSIDE
    for index, tag in enumerate([*tags, OUTSIDE]):  # the last "O" ends an entity that reaches to the end
        if last[0] in "BI" and tag[0] in "IE" and last[2:] == tag[2:]:
            last = tag
            continue
        if last != OUTSIDE:
            found.add((last[2:], start, index))
        start, last = index, tag
    return found
