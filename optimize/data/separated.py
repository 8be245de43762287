"""Files of separated values as people write them: which sign separates, and whether quotes hold a row together."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from optimize.data.forms import open_text, require_no_zeros, suffix_of
from optimize.errors import DataError

SEPARATED = (".csv", ".tsv")
OTHER_DELIMITERS = (";", "\t")
"""What a .csv file has in place of commas where spreadsheets use the comma for decimals."""


@dataclass(frozen=True)
class Dialect:
    """How a file of separated values is to be read, and how many of its lines hold text and how many are rows."""

    delimiter: str
    quoted: bool
    lines: int
    rows: int

    @property
    def constant(self) -> Literal[0, 3]:
        """What module csv and pandas call it whether fields may be in quotes."""
        return _constant(quoted=self.quoted)


def read_header(path: Path) -> tuple[str, ...]:
    """The names of the columns; nothing where no row follows."""
    delimiter = delimiter_of(path)
    with open_text(path) as stream:
        lines = csv.reader(stream, delimiter=delimiter)
        header = tuple(next(lines, ()))
        require_no_zeros(path, "".join(header))
        return header if any(lines) else ()


def delimiter_of(path: Path) -> str:
    """What separates fields: a tab in a .tsv file; in a .csv file a comma, or what its header has where it has none."""
    if suffix_of(path) == ".tsv":
        return "\t"
    with open_text(path) as stream:
        header = stream.readline()
    if _width(header, ",") > 1:
        return ","
    return next((each for each in OTHER_DELIMITERS if _width(header, each) > 1), ",")


def _width(line: str, delimiter: str) -> int:
    return len(next(csv.reader([line], delimiter=delimiter), ()))


def dialect_of(path: Path) -> Dialect:
    """How a file is to be read; refuses one that can be read in two ways.

    Many tables of texts are written without quoting, and a text that begins with a quote would take all lines up to
    the next such into itself. So each line is a row wherever each has as many fields as the header.
    """
    delimiter = delimiter_of(path)
    plain, quoted = _widths(path, delimiter, quoted=False), _widths(path, delimiter, quoted=True)
    by_line = plain is not None and len(set(plain)) <= 1
    by_quotes = quoted is not None and len(set(quoted)) <= 1
    lines = len(plain or ())
    if quoted is not None and len(quoted) == lines:
        return Dialect(delimiter, True, lines, lines)
    if by_line and by_quotes and suffix_of(path) == ".csv":
        raise DataError(
            f"{path}: has {lines:,} lines, of which quotes make {len(quoted or ()):,} rows, and both can be meant; "
            "double the quotes inside of texts, or write it as jsonl"
        )
    if by_line:
        return Dialect(delimiter, False, lines, lines)
    if quoted is None:
        raise DataError(
            f"{path}, line {_broken_line(path, delimiter)}: a quote opens a text and nothing closes it, or text "
            "follows the one that does; double the quotes inside of texts, or write it as jsonl"
        )
    return Dialect(delimiter, True, lines, len(quoted))


def note_on_lines(path: Path) -> str | None:
    """What to say of a file whose rows are fewer than its lines that hold text; None where there is nothing."""
    if suffix_of(path) not in SEPARATED:
        return None
    found = dialect_of(path)
    if found.lines == found.rows:
        return None
    return (
        f"{path}: {found.lines - 1:,} lines after the header are {found.rows - 1:,} rows: quotes join lines to one text"
    )


def _widths(path: Path, delimiter: str, *, quoted: bool) -> list[int] | None:
    """How many fields each row has, the header included; None where quotes are not as they have to be."""
    csv.field_size_limit(2**31 - 1)  # a text may be longer than the 131,072 characters that it is otherwise
    with open_text(path) as stream:
        try:
            found = csv.reader(stream, delimiter=delimiter, quoting=_constant(quoted=quoted), strict=True)
            return [len(fields) for fields in found if fields]
        except csv.Error:
            return None


def _constant(*, quoted: bool) -> Literal[0, 3]:
    return csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE


def _broken_line(path: Path, delimiter: str) -> int:
    """The line on which a text in quotes begins that does not end as it has to."""
    with open_text(path) as stream:
        found = csv.reader(stream, delimiter=delimiter, strict=True)
        begins = 1
        try:
            for _ in found:
                begins = found.line_num + 1
        except csv.Error:
            pass
    return begins
