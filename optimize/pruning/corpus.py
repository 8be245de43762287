"""Texts of a corpus: a UTF-8 file with a text a line, a `.jsonl` file whose strings are all texts, or a folder of such.

Which column of a `.jsonl` file is meant need not be said, so the training split of a data set is a corpus as it lies
there. Names of labels and ids come along, which costs a few word pieces. A list of strings is one text: its words.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from optimize.errors import RequestError, first_line

SUFFIXES = (".txt", ".jsonl")


def read_corpus(path: Path) -> Iterator[str]:
    """All texts but empty ones, file by file; raises RequestError for what cannot be read."""
    for file in corpus_files(path.expanduser()):
        try:
            with file.open(encoding="utf-8-sig") as stream:
                yield from _texts(stream, file) if file.suffix == ".jsonl" else _lines(stream)
        except (OSError, UnicodeDecodeError) as error:
            raise RequestError(f"{file}: cannot be read ({first_line(error)}); give UTF-8 text") from error


def corpus_files(path: Path) -> list[Path]:
    """The files of a corpus; of a folder those that end as texts do."""
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and file.is_file())
    return [path]


def why_no_corpus(path: Path) -> str | None:
    """Why a corpus has no texts to give, or None."""
    if not path.expanduser().exists():
        return f"{path}: no such file or folder; check the corpus"
    if not (path.expanduser().is_file() or path.expanduser().is_dir()):  # a pipe waits, a device may never end
        return f"{path}: is neither a file nor a folder; check the corpus"
    count = 0
    try:
        # To the end: a line that cannot be read is to be found before anything else is done.
        for _ in read_corpus(path):
            count += 1
    except RequestError as error:
        return str(error)
    if not count:
        return f"{path}: holds no text; give a text a line, or {' or '.join(SUFFIXES)} files in a folder"
    return None


def _lines(stream: Iterator[str]) -> Iterator[str]:
    for line in stream:
        if text := line.strip():
            yield text


def _texts(stream: Iterator[str], file: Path) -> Iterator[str]:
    for number, line in enumerate(stream, 1):
        try:
            row = json.loads(line) if line.strip() else None
        except ValueError as error:
            raise RequestError(f"{file}: line {number} is not JSON; write one object a line") from error
        yield from _strings(row)


def _strings(value: object) -> Iterator[str]:
    """All strings in a JSON value but empty ones and the keys."""
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        value = " ".join(value)
    if isinstance(value, str) and value.strip():
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each)
