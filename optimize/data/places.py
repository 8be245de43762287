"""Where rows stand in a file, and whether quotes in it hold a row together: what readers of tables do not say."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, TextIO

from optimize.errors import DataError

DELIMITERS = {".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True)
class Quoting:
    """How a file of separated values is to be read, and how many of its lines hold text and how many are rows."""

    quoted: bool
    lines: int
    rows: int

    @property
    def constant(self) -> Literal[0, 3]:
        """The same as module csv and pandas call it."""
        return _constant(quoted=self.quoted)


def quoting_of(path: Path) -> Quoting:
    """Whether fields may be in quotes, by which a text may have several lines; refuses a file that can be either.

    Many tables of texts are written without quoting, and a text that begins with a quote would take all lines up to
    the next such into itself. So each line is a row wherever each has as many fields as the header.
    """
    plain, quoted = _widths(path, quoted=False), _widths(path, quoted=True)
    by_line = plain is not None and len(set(plain)) <= 1
    by_quotes = quoted is not None and len(set(quoted)) <= 1
    lines = len(plain or ())
    if quoted is not None and len(quoted) == lines:
        return Quoting(True, lines, lines)
    if by_line and by_quotes and path.suffix == ".csv":
        raise DataError(
            f"{path}: has {lines:,} lines, of which quotes make {len(quoted or ()):,} rows, and both can be meant; "
            "double the quotes inside of texts, or write it as jsonl"
        )
    if by_line:
        return Quoting(False, lines, lines)
    if quoted is None:
        raise DataError(
            f"{path}, line {_broken_line(path)}: a quote opens a text and nothing closes it, or text follows the one "
            "that does; double the quotes inside of texts, or write it as jsonl"
        )
    return Quoting(True, lines, len(quoted))


def note_on_lines(path: Path) -> str | None:
    """What to say of a file whose rows are fewer than its lines that hold text; None where there is nothing."""
    if path.suffix not in DELIMITERS:
        return None
    found = quoting_of(path)
    if found.lines == found.rows:
        return None
    return (
        f"{path}: {found.lines - 1:,} lines after the header are {found.rows - 1:,} rows: quotes join lines to one text"
    )


def places(path: Path | None, indices: Sequence[int]) -> list[str]:
    """Where rows stand: by their lines in a file that has a row on a line, else by their numbers from 1 on."""
    if path is None or not indices or path.suffix in (".parquet", ".json"):
        return [f"row {index + 1:,}" for index in indices]
    with _text(path) as stream:
        numbers = list(islice(_first_lines(path, stream), max(indices) + 1))
    return [f"line {numbers[index]:,}" for index in indices]


def _first_lines(path: Path, stream: TextIO) -> Iterator[int]:
    """The line that each row begins on."""
    if path.suffix not in DELIMITERS:
        yield from (number for number, line in enumerate(stream, start=1) if line.strip())
        return
    found = csv.reader(stream, delimiter=DELIMITERS[path.suffix], quoting=quoting_of(path).constant)
    next(found, None)
    begins = found.line_num + 1
    for fields in found:
        if fields:
            yield begins
        begins = found.line_num + 1


def _widths(path: Path, *, quoted: bool) -> list[int] | None:
    """How many fields each row has, the header included; None where quotes are not as they have to be."""
    csv.field_size_limit(2**31 - 1)  # a text may be longer than the 131,072 characters that it is otherwise
    with _text(path) as stream:
        try:
            found = csv.reader(stream, delimiter=DELIMITERS[path.suffix], quoting=_constant(quoted=quoted), strict=True)
            return [len(fields) for fields in found if fields]
        except csv.Error:
            return None


def _constant(*, quoted: bool) -> Literal[0, 3]:
    return csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE


def _broken_line(path: Path) -> int:
    """The line on which a text in quotes begins that does not end as it has to."""
    with _text(path) as stream:
        found = csv.reader(stream, delimiter=DELIMITERS[path.suffix], strict=True)
        begins = 1
        try:
            for _ in found:
                begins = found.line_num + 1
        except csv.Error:
            pass
    return begins


def _text(path: Path) -> TextIO:
    # Spreadsheets write a byte order mark, which "utf-8-sig" takes away.
    return path.open(encoding="utf-8-sig", newline="", errors="replace")
