"""Files of JSON as people write them: a list of rows, rows under a key beside others, or one row on each line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

from optimize.data.forms import open_text, suffix_of
from optimize.data.squad import flat_rows
from optimize.errors import DataError
from optimize.files.small import MAX_DEPTH, check_depth

OBJECTS = (".jsonl", ".json")
KEY = "data"
"""What rows stand under where a file is one object."""
SPACE = re.compile(r"\s*")


def first_object(path: Path) -> object:
    """The first row, or an empty one where there is none; raises as `read_objects`."""
    if suffix_of(path) == ".json":
        return next(read_objects(path), {})
    with open_text(path) as stream:
        line = next(filter(str.strip, stream), "").strip()
    return json.JSONDecoder().raw_decode(line)[0] if line else {}


def read_objects(path: Path) -> Iterator[object]:
    """The rows of a .json file: of its list, of the list under "data", or, of several values, each.

    SQuAD's articles become a row for each question. Raises ValueError for what is no JSON, and TypeError for a broken
    article.
    """
    with open_text(path) as stream:
        values = _values(stream.read())
    start = list(islice(values, 2))
    alone = start[0] if len(start) == 1 else None
    if isinstance(alone, dict) and isinstance(alone.get(KEY), list):
        alone = alone[KEY]
    return flat_rows(alone if isinstance(alone, list) else chain(start, values))


def write_lines(path: Path, target: Path) -> None:
    """Write the rows of a .json file with one on each line; raises DataError where it is no JSON."""
    try:
        with target.open("x", encoding="utf-8") as stream:
            for row in read_objects(path):
                stream.write(json.dumps(row) + "\n")
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); check the file") from error


def check_nesting(path: Path) -> None:
    """Refuse rows that are nested so deeply that what parses them, in C++, would end this process."""
    lines = suffix_of(path) == ".jsonl"
    with open_text(path) as stream:
        for number, row in enumerate(stream if lines else [stream.read()], 1):
            try:
                # Most rows need no closer look: counting is a hundred times faster.
                if row.count("[") + row.count("{") > MAX_DEPTH:
                    check_depth(row)
            except ValueError as error:
                place = f"line {number}: " if lines else ""
                raise DataError(f"{path}: cannot be read ({place}{error}); check the file") from error


def _values(text: str) -> Iterator[object]:
    """The JSON values of a text, one after the other."""
    decoder, place = json.JSONDecoder(), _after_space(text, 0)
    while place < len(text):
        value, place = decoder.raw_decode(text, place)
        place = _after_space(text, place)
        yield value


def _after_space(text: str, place: int) -> int:
    found = SPACE.match(text, place)
    return found.end() if found else place
