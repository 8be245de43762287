"""Read tables of files; what they hold and how is left to `datasets`, once it is plain what they are."""

from __future__ import annotations

import csv
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from optimize.data.files import Files, find_file, find_files, name_of
from optimize.data.forms import READERS, check_text, open_text, suffix_of
from optimize.data.objects import OBJECTS, check_nesting, first_object, write_lines
from optimize.data.saved import ARROW, find_saved, is_saved, read_columns, read_saved
from optimize.data.separated import SEPARATED, dialect_of, read_header
from optimize.errors import DataError, first_line
from optimize.files.putting import raise_if_full

if TYPE_CHECKING:
    from datasets import Dataset, Features

    from optimize.interfaces import Row

    Table = Dataset | list[Row]
    """What rows are read from: of a data set that `datasets` reads, or the demo's own."""


def find_tables(path: Path, config: str | None) -> dict[str, Files]:
    """The files of each split of what lies at a path: a file, a folder of files, or one that `datasets` saved."""
    if path.is_dir() and not is_saved(path):
        return find_files(path, config)
    if config is not None:
        raise DataError(f"--data-config: '{path}' has no '{config}'; leave it out")
    return find_saved(path) if path.is_dir() else find_file(path)


def peek_columns(files: Files) -> list[str]:
    """Column names of a split, from its first row or its header; refuses one without rows."""
    columns: object = ()
    for path in files:
        try:
            columns = columns or _first_row(path)
        except (
            OSError,
            ValueError,
            TypeError,
            csv.Error,
            RecursionError,
        ) as error:  # the last for what is nested too deeply
            raise DataError(f"{path}: cannot be read ({first_line(error)}); check the file") from error
    if not columns:
        raise DataError(f"{name_of(files)}: is empty; give it examples, or name another split with --certify-on")
    if not isinstance(columns, dict | tuple):
        raise DataError(
            f"{name_of(files)}: its first row is not a JSON object; write one object on each line, or a list of them"
        )
    return list(columns)


def _first_row(path: Path) -> object:
    """The first JSON value, or the header as a tuple; nothing where no row follows."""
    if path.suffix == ARROW:
        return read_columns(path)
    suffix = suffix_of(path)
    if suffix in SEPARATED:
        return read_header(path)
    if suffix in OBJECTS:
        return first_object(path)
    import pyarrow.parquet

    table = pyarrow.parquet.ParquetFile(path)
    return tuple(table.schema_arrow.names) if table.metadata.num_rows else ()


def read_file(files: Mapping[str, Files], place: Path, split: str, *, features: Features | None = None) -> Dataset:
    """The table of one split's files, which lies in `place` from then on, with the `features` that are known of it.

    `datasets` knows a file by its size and time, so `place` has to be new: nothing from before is to be found there.
    """
    import datasets

    silence_datasets()
    paths = files[split]
    peek_columns(paths)
    try:
        if paths[0].suffix == ARROW:
            return read_saved(paths, place)
        options: dict[str, object] = {**_options(paths), "features": features}
        prepared = [str(_prepare(path, place, f"{split}-{number}")) for number, path in enumerate(paths)]
        return datasets.load_dataset(
            READERS[suffix_of(paths[0])], data_files=prepared, split="train", cache_dir=str(place), **options
        )
    except (OSError, ValueError, TypeError, datasets.exceptions.DatasetsError) as error:
        raise_if_full(error)
        cause = error.__cause__ or error
        raise DataError(f"{name_of(paths)}: cannot be read ({first_line(cause)}); check the file") from error


def _prepare(path: Path, place: Path, name: str) -> Path:
    """A file in a form and under a name that `datasets` reads: plain UTF-8, of JSON a row on each line.

    Where it is that already, it gets a link: `datasets` takes a path for a pattern, so "x[1]" would also be the folder
    x1, and "a::b" an archive.
    """
    suffix = suffix_of(path)
    target = place / f"{name}{suffix}"
    if suffix in OBJECTS:
        check_nesting(path)
    if suffix == ".json":
        write_lines(path, target)
    elif suffix == ".parquet" or check_text(path):
        target.symlink_to(path.resolve())
    else:
        with open_text(path) as stream, target.open("x", encoding="utf-8", newline="") as out:
            shutil.copyfileobj(stream, out)
    return target


def _options(files: Files) -> dict[str, bool | str | int]:
    """How values are separated; an empty cell is an empty text, and "NA" or "null" are words."""
    if suffix_of(files[0]) not in SEPARATED:
        return {}
    found = [(dialect.delimiter, dialect.constant) for dialect in map(dialect_of, files)]
    if len(set(found)) > 1:
        raise DataError(f"{name_of(files)}: separate or quote values in different ways; write them alike")
    delimiter, quoting = found[0]
    return {"keep_default_na": False, "delimiter": delimiter, "quoting": quoting}


def silence_datasets() -> None:
    """Take away the library's progress bars, and log lines that repeat an error."""
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(logging.CRITICAL)


@contextmanager
def renamed(path: str, name: str) -> Iterator[None]:
    """Let refusals say a name in place of a path that stands for something else."""
    try:
        yield
    except DataError as error:
        raise DataError(str(error).replace(path, name)) from error
