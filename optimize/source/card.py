"""What a checkpoint's own model card states: licence, languages, data sets.

A card is written by hand, and nothing of the checkpoint depends on it. Metadata that are not as the Hub has them state
nothing.
"""

from __future__ import annotations

import re
from pathlib import Path

from optimize.errors import SourceError
from optimize.files.small import parse_yaml, read_small
from optimize.manifest import SourceCard
from optimize.source.finding import Found

FILE = "README.md"
FRONT = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
"""The metadata, between two lines at the beginning."""
MOST_BYTES = 2**22
MOST_LETTERS, MOST_VALUES = 200, 200
"""Of a value that is kept, and of a list of them."""


def read_card(found: Found) -> SourceCard:
    """The card of what was found, once it is on this machine; of an adapter its own card, not its base's.

    Raises SourceError where there is a file of its name that is no text.
    """
    path = _path(found)
    if path is None or not path.is_file():
        return SourceCard()
    text = read_small(path, most=MOST_BYTES, where=str(path), refusal=SourceError, advice="write it as text in UTF-8")
    front = FRONT.match(text)
    return parse_card(front[1]) if front else SourceCard()


def parse_card(front: str) -> SourceCard:
    """What metadata state, as YAML."""
    try:
        stated = parse_yaml(front)
    except ValueError:
        return SourceCard()
    if not isinstance(stated, dict):
        return SourceCard()
    names = ("license", "license_name", "license_link")
    single = {name: next(iter(_texts(stated.get(name))), None) for name in names}
    return SourceCard(**single, language=_texts(stated.get("language")), datasets=_texts(stated.get("datasets")))


def _path(found: Found) -> Path | None:
    """Where the card lies: in the folder, or in the Hub's cache."""
    if found.kind == "hub":
        import huggingface_hub

        cached = huggingface_hub.try_to_load_from_cache(found.id, FILE, revision=found.revision)
        return Path(cached) if isinstance(cached, str) else None
    return found.folder / FILE if found.folder else None


def _texts(value: object) -> list[str]:
    """One text or a list of them as a list, without what is no line of text."""
    values = value if isinstance(value, list) else [value]
    return [each for each in values if isinstance(each, str) and _is_line(each)][:MOST_VALUES]


def _is_line(text: str) -> bool:
    return text.isprintable() and 0 < len(text.strip()) <= MOST_LETTERS
