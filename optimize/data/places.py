"""Where rows stand in files, which readers of tables do not say."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from optimize.data.files import Files
from optimize.data.forms import open_text, suffix_of
from optimize.data.objects import read_objects
from optimize.data.separated import SEPARATED, dialect_of


def places(files: Files, indices: Sequence[int]) -> list[str]:
    """Where rows of a split stand: by their lines in files that have a row on a line, else by their numbers from 1 on.

    Of several files each is named. Without files, rows are numbered.
    """
    if not files:
        return [f"row {index + 1:,}" for index in indices]
    wanted = set(indices)
    rows = enumerate(islice(_places(files), max(wanted, default=-1) + 1))
    found = {index: place for index, place in rows if index in wanted}
    return [found[index] for index in indices]


def _places(files: Files) -> Iterator[str]:
    for path in files:
        before = f"{path.name}, " if len(files) > 1 else ""
        for place in _numbers(path):
            yield before + place


def _numbers(path: Path) -> Iterator[str]:
    if suffix_of(path) in (*SEPARATED, ".jsonl"):
        yield from (f"line {number:,}" for number in _first_lines(path))
    else:
        yield from (f"row {number + 1:,}" for number in range(_row_count(path)))


def _row_count(path: Path) -> int:
    if suffix_of(path) == ".json":
        return sum(1 for _ in read_objects(path))
    if suffix_of(path) == ".parquet":
        import pyarrow.parquet

        return int(pyarrow.parquet.ParquetFile(path).metadata.num_rows)
    import pyarrow

    with pyarrow.ipc.open_stream(path) as batches:
        return sum(batch.num_rows for batch in batches)


def _first_lines(path: Path) -> Iterator[int]:
    """The line that each row begins on."""
    with open_text(path) as stream:
        if suffix_of(path) == ".jsonl":
            yield from (number for number, line in enumerate(stream, start=1) if line.strip())
            return
        dialect = dialect_of(path)
        found = csv.reader(stream, delimiter=dialect.delimiter, quoting=dialect.constant)
        next(found, None)
        begins = found.line_num + 1
        for fields in found:
            if fields:
                yield begins
            begins = found.line_num + 1
