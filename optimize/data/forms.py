"""What files of tables are called, and how their bytes become text: unpacked within bounds, decoded strictly.

Text is UTF-8, or what its byte order mark says. Without one, bytes that are not UTF-8 are refused: which of the many
other encodings is meant cannot be told from a file, and a wrong guess would change texts without a word.
"""

from __future__ import annotations

import codecs
import gzip
import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, BinaryIO, TextIO

from optimize.errors import DataError, brief, first_line

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

READERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}
"""What `datasets` reads a file of each suffix with."""
COMPRESSED = (".gz", ".zst")
SUFFIXES = "jsonl, json, csv, tsv, parquet; all but the last also as .gz and .zst"
FREE_BYTES = 2**26
"""Whatever its size, a compressed file may hold so much."""
MOST_TIMES = 100
"""Beyond that, it holds at most so many times its own size: text packs some ten times, what is made to do harm more."""
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order marks; UTF-32's begins with UTF-16's."""
CHUNK = 2**20


@dataclass(frozen=True)
class Form:
    """What a file's name says: its stem, the suffix of what it holds, and that of how it is packed, if it is."""

    stem: str
    suffix: str
    packed: str


def form_of(path: PurePath) -> Form | None:
    """What a file's name says of its content, in any case; None where it is none that holds a table."""
    name = path.name.lower()
    packed = next((each for each in COMPRESSED if name.endswith(each)), "")
    inner = PurePath(name.removesuffix(packed))
    if inner.suffix not in READERS or (packed and inner.suffix == ".parquet"):
        return None
    return Form(inner.stem, inner.suffix, packed)


def suffix_of(path: PurePath) -> str:
    """The suffix of what a file holds, such as ".csv"; nothing where it is no table."""
    form = form_of(path)
    return form.suffix if form else ""


class _Unpacked(io.RawIOBase):
    """A compressed file's content, up to a bound."""

    def __init__(self, read: Callable[[int], bytes], path: Path) -> None:
        self._read = read
        self._path = path
        self._left = max(FREE_BYTES, MOST_TIMES * path.stat().st_size)

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Read what fits; DataError beyond the bound, or where it is damaged."""
        view = memoryview(buffer).cast("B")
        try:
            chunk = self._read(len(view))
        except (OSError, EOFError) as error:
            raise DataError(f"{self._path}: cannot be unpacked ({first_line(error)}); pack it again") from error
        self._left -= len(chunk)
        if self._left < 0:
            raise DataError(
                f"{self._path}: unpacks to more than {MOST_TIMES} times its size; unpack it yourself if that is meant"
            )
        view[: len(chunk)] = chunk
        return len(chunk)


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """A file's content, unpacked where it is packed; raises DataError for what is damaged or unpacks without end."""
    form = form_of(path)
    if form is None or not form.packed:
        with path.open("rb") as stream:
            yield stream
        return
    with ExitStack() as stack:
        if form.packed == ".gz":
            read: Callable[[int], bytes] = stack.enter_context(gzip.open(path)).read
        else:
            import pyarrow

            read = stack.enter_context(pyarrow.input_stream(str(path), compression="zstd")).read
        yield stack.enter_context(io.BufferedReader(_Unpacked(read, path), CHUNK))


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """A file's text with its line ends; raises DataError, with the line, for bytes that are no text."""
    encoding = encoding_of(path)
    with open_bytes(path) as stream, io.TextIOWrapper(stream, encoding=encoding, newline="") as text:
        try:
            yield text
        except UnicodeDecodeError as error:
            raise _refusal(path, encoding, error) from error


def encoding_of(path: Path) -> str:
    """What the byte order mark says; UTF-8, with or without one, where it says nothing else."""
    with open_bytes(path) as stream:
        start = stream.read(4)
    return next((encoding for mark, encoding in MARKS if start.startswith(mark)), "utf-8-sig")


def check_text(path: Path) -> bool:
    """Whether a file is UTF-8 as it lies there, without a mark; refuses one that is no text."""
    form = form_of(path)
    with open_bytes(path) as stream:
        marked = stream.read(3) == codecs.BOM_UTF8
    with open_text(path) as text:
        while chunk := text.read(CHUNK):
            require_no_zeros(path, chunk)
    return not marked and encoding_of(path) == "utf-8-sig" and not (form and form.packed)


def require_no_zeros(path: Path, text: str) -> None:
    """Refuse text with zero bytes, which is no text, or UTF-16 without a mark that says so."""
    if "\0" in text:
        raise DataError(f"{path}: cannot be read (it has zero bytes, as UTF-16 has); save it as UTF-8")


def _refusal(path: Path, encoding: str, error: UnicodeDecodeError) -> DataError:
    if encoding != "utf-8-sig":
        return DataError(f"{path}: cannot be read ({brief(first_line(error))}); save it as UTF-8")
    with open_bytes(path) as stream:
        for number, line in enumerate(stream, start=1):
            try:
                line.decode("utf-8-sig")
            except UnicodeDecodeError as first:
                byte = line[first.start : first.start + 1]
                found = f"line {number}: byte 0x{byte.hex()} is not UTF-8"
                # What a byte would be in the encoding that spreadsheets on Windows write helps to see what happened.
                if letter := byte.decode("cp1252", errors="ignore"):
                    found += f", but would be '{letter}' in Windows-1252"
                return DataError(f"{path}: cannot be read ({found}); save it as UTF-8, in a spreadsheet as 'CSV UTF-8'")
    return DataError(f"{path}: changed while it was read; run again once nothing writes to it")
