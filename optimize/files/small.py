"""Small text files that users write or bring along: YAML and JSON, read so that nothing in them can do harm.

A file that never ends, waits for somebody to write it, or is larger than such files are is refused before it is read;
nesting that would exhaust the stack, aliases that unfold to gigabytes, and keys of which the last would silently win
are refused before anything is built of them. What comes back holds plain values alone: mappings, lists, text, finite
numbers, booleans and None.
"""

from __future__ import annotations

import json
import math
import re
import stat
from pathlib import Path
from typing import Any

import yaml

from optimize.errors import RequestError, brief, first_line

MAX_DEPTH = 32
"""Levels of nesting; pipelines and configs have about five."""
MAX_YAML_BYTES = 2**16
"""Pipelines have about 1 KiB. YAML is read at about 200 KiB a second."""
MAX_JSON_BYTES = 2**24
"""A config or an index has some KiB, the added tokens of a large vocabulary a few MiB."""
PLAIN_TAGS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map"))
JSON_TOKENS = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)
Refusal = type[RequestError]


def read_small(path: Path, *, most: int, where: str, refusal: Refusal, advice: str) -> str:
    """The text of a regular file, or of a link to one, that has at most so many bytes.

    UTF-8, with or without a byte order mark. Raises `refusal`, which begins with `where` and ends in `advice`.
    """
    try:
        # Opening a FIFO would wait for somebody to write it, and a device may never end.
        if not stat.S_ISREG(path.stat().st_mode):
            raise ValueError("it is not a regular file")
        with path.open("rb") as stream:
            content = stream.read(most + 1)
        if len(content) > most:
            raise ValueError(f"it is larger than {most // 1024:,} KiB")
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise refusal(f"{where}: cannot be read (byte {error.start} is not UTF-8); {advice}") from error
    except OSError as error:
        raise refusal(f"{where}: cannot be read ({error.strerror}); {advice}") from error
    except ValueError as error:
        raise refusal(f"{where}: cannot be read ({brief(first_line(error))}); {advice}") from error


def read_yaml(path: Path, *, advice: str) -> object:
    """The content of a YAML file; raises RequestError."""
    text = read_small(path, most=MAX_YAML_BYTES, where=str(path), refusal=RequestError, advice=advice)
    try:
        return parse_yaml(text)
    except ValueError as error:
        raise RequestError(f"{path}: not YAML ({error}); mend the file") from error


def read_json(path: Path, *, where: str, refusal: Refusal, advice: str) -> object:
    """The content of a JSON file; raises `refusal`, which begins with `where` and ends in `advice`."""
    text = read_small(path, most=MAX_JSON_BYTES, where=where, refusal=refusal, advice=advice)
    try:
        return parse_json(text)
    except ValueError as error:
        raise refusal(f"{where}: cannot be read ({error}); {advice}") from error


def parse_yaml(text: str) -> object:
    """The plain value of a YAML text; raises ValueError with the reason and its place on one line."""
    try:
        return _plain(yaml.load(text, Loader=_PlainLoader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ValueError(f"{place}{brief(error.problem or error.context or 'it ends too early')}") from error
    # PyYAML passes on what Python says of a number with thousands of digits.
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(brief(first_line(error))) from error


def parse_json(text: str) -> object:
    """The plain value of a JSON text; raises ValueError with the reason on one line."""
    try:
        check_depth(text)
        return _plain(json.loads(text, object_pairs_hook=_unique))
    except ValueError as error:
        raise ValueError(brief(first_line(error))) from error


def check_depth(text: str) -> None:
    """Refuse deep nesting before `json`, which recurses, meets it; brackets in strings are text."""
    depth = 0
    for token in JSON_TOKENS.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token[0], 0)
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{brief(name)!r} is there twice in one object")
        found[name] = value
    return found


def _plain(value: object) -> object:
    """The value as it is; refuse numbers that are none, and text that no file can hold. Its depth is bounded."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is not a finite number")
    if isinstance(value, str):
        value.encode()  # half of a pair of surrogates is no text: UnicodeEncodeError
    for key, each in value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else ()):
        _plain(key)
        _plain(each)
    return value


class _PlainLoader(yaml.SafeLoader):
    """YAML without what makes it more than its text: aliases, tags, merges, and keys that are there twice."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose the next value, unless it is too deep, or not one of the plain ones."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        self.depth += 1
        if isinstance(event, yaml.AliasEvent):
            raise _refusal("aliases are not read; write it out", event)
        if getattr(event, "tag", None) is not None:  # what a tag claims of a value need not be true of it
            raise _refusal("tags are not read; leave it out", event)
        if self.depth > MAX_DEPTH:
            raise _refusal(f"it is nested deeper than {MAX_DEPTH} levels", event)
        node = super().compose_node(parent, index)
        self.depth -= 1
        if node is not None and node.tag not in PLAIN_TAGS:
            raise _refusal(f"a {node.tag.rpartition(':')[2]} is read as text only; quote it", node)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Construct a mapping, unless it has a key twice."""
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, list | dict):
                raise _refusal("a key is one word", key_node)
            if key in seen:
                raise _refusal(f"{brief(key)!r} is there twice; leave one out", key_node)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _refusal(reason: str, place: Any) -> yaml.MarkedYAMLError:
    """The refusal of an event or a node, which both know where they begin."""
    return yaml.MarkedYAMLError(problem=reason, problem_mark=place.start_mark)
