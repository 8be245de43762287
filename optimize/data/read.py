"""Read tables: files of a folder, or a Hub id. What is read and how is left to `datasets`."""

from __future__ import annotations

import csv
import errno
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from optimize.data.places import DELIMITERS, quoting_of
from optimize.data.squad import articles_in, flat_rows, write_flat
from optimize.errors import DataError, first_line
from optimize.files.small import MAX_DEPTH, check_depth
from optimize.hub import client
from optimize.hub.refusals import Repository, asking_hub
from optimize.hub.repository import cached_folder, inspect_repository, is_offline
from optimize.interfaces import Progress

if TYPE_CHECKING:
    from datasets import Dataset

    from optimize.interfaces import Row

    Table = Dataset | list[Row]
    """What rows are read from: of a data set that `datasets` reads, or the demo's own."""

SUFFIXES = "jsonl, json, csv, tsv, parquet"
READERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}
SPLITS = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}


def find_files(folder: Path) -> dict[str, Path]:
    """The file of each split in a folder, by the splits' usual names."""
    files: dict[str, Path] = {}
    for split, names in SPLITS.items():
        for path in sorted(folder.iterdir()):
            if path.stem not in names or path.suffix not in READERS:
                continue
            if split in files:
                raise DataError(f"{folder}: {files[split].name} and {path.name} are both '{split}'; keep one of them")
            if not path.is_file():  # opening a FIFO would wait for somebody to write it
                raise DataError(f"{path}: is not a regular file; check --data")
            files[split] = path
    if not files:
        raise DataError(f"{folder}: no train, validation or test file ({SUFFIXES}); check --data")
    return files


def peek_columns(path: Path) -> list[str]:
    """Column names of a file, from its first row or its header; refuses a file without rows."""
    try:
        columns = _first_row(path)
    except (OSError, ValueError, TypeError, csv.Error, RecursionError) as error:  # the last for deep nesting
        raise DataError(f"{path}: cannot be read ({first_line(error)}); check the file") from error
    if not columns:
        raise DataError(f"{path}: is empty; give it examples, or name another split with --certify-on")
    if not isinstance(columns, dict | tuple):
        raise DataError(f"{path}: its first row is not a JSON object; write one object on each line")
    return list(columns)


def _first_row(path: Path) -> object:
    """The first JSON value, or the header as a tuple; nothing where no row follows."""
    if path.suffix == ".parquet":
        import pyarrow.parquet

        table = pyarrow.parquet.ParquetFile(path)
        return tuple(table.schema_arrow.names) if table.metadata.num_rows else ()
    # Spreadsheets write a byte order mark, which "utf-8-sig" takes away.
    with path.open(encoding="utf-8-sig", newline="") as stream:
        if READERS[path.suffix] == "csv":
            lines = csv.reader(stream, delimiter="\t" if path.suffix == ".tsv" else ",")
            header = tuple(next(lines, ()))
            return header if any(lines) else ()
        text = stream.read() if path.suffix == ".json" else next(filter(str.strip, stream), "")
    row = json.JSONDecoder().raw_decode(text.strip())[0] if text.strip() else {}
    if path.suffix == ".json" and (articles := articles_in(row)):
        return next(flat_rows(articles), {})
    return next(iter(row), {}) if path.suffix == ".json" and isinstance(row, list) else row


def read_file(files: Mapping[str, Path], place: Path, split: str) -> Dataset:
    """The table of one split's file, which lies in `place` from then on.

    `datasets` knows a file by its size and time, so `place` has to be new: nothing from before is to be found there.
    It takes a path for a pattern, so it gets a link: "x[1]" would also be the folder x1, and "a::b" an archive.
    """
    import datasets

    _silence_datasets()
    path = files[split]
    peek_columns(path)
    check_nesting(path)
    link = place / f"{split}{path.suffix}"
    # An empty cell is an empty text, and "NA" or "null" are words.
    options: dict[str, bool | str | int] = {}
    if path.suffix in DELIMITERS:
        options = {"keep_default_na": False, "delimiter": DELIMITERS[path.suffix]}
        options["quoting"] = quoting_of(path).constant
    try:
        if path.suffix != ".json" or not write_flat(path, link):
            link.symlink_to(path.resolve())
        return datasets.load_dataset(
            READERS[path.suffix], data_files=str(link), split="train", cache_dir=str(place), **options
        )
    except (OSError, ValueError, TypeError, datasets.exceptions.DatasetsError) as error:
        _raise_if_full(error)
        cause = error.__cause__ or error
        raise DataError(f"{path}: cannot be read ({first_line(cause)}); check the file") from error


def check_nesting(path: Path) -> None:
    """Refuse rows of JSON that are nested so deeply that what parses them, in C++, would end this process."""
    if READERS[path.suffix] != "json":
        return
    with path.open(encoding="utf-8-sig", errors="replace") as stream:
        for number, row in enumerate(stream if path.suffix == ".jsonl" else [stream.read()], 1):
            try:
                # Most rows need no closer look: counting is a hundred times faster.
                if row.count("[") + row.count("{") > MAX_DEPTH:
                    check_depth(row)
            except ValueError as error:
                place = f"line {number}: " if path.suffix == ".jsonl" else ""
                raise DataError(f"{path}: cannot be read ({place}{error}); check the file") from error


def _silence_datasets() -> None:
    """Take away the library's progress bars, and log lines that repeat an error."""
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(logging.CRITICAL)


def _raise_if_full(error: BaseException | None) -> None:
    """Raise a full disk as the OSError it is, and not as a fault of the data; `datasets` wraps it."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise OSError(error.errno, error.strerror)
        error = error.__cause__ or error.__context__


def inspect_hub(name: str, revision: str | None, progress: Progress) -> str:
    """The commit of a Hub data set; refuses one that is not there."""
    commit, _ = inspect_repository(_repository(name, revision), progress)
    return commit


def _repository(name: str, revision: str | None) -> Repository:
    return Repository("dataset", name, revision, "--data", DataError)


def read_hub(name: str, config: str | None, revision: str | None, place: Path) -> Mapping[str, Dataset]:
    """All splits of a Hub data set, at a commit; offline, of its folder in the Hub's cache.

    Its files stay in that cache, as a model's do. Its tables lie in `place`, which has to be new, as for files: where
    the Hub fails, `datasets` takes what it finds there, at whatever commit that was and whoever wrote to it since.
    """
    import datasets

    _silence_datasets()
    asked = _repository(name, revision)
    with asking_hub(asked), _loading(name):
        found, commit = (str(cached_folder(asked)), None) if is_offline() else (name, revision)
        tables: Mapping[str, Dataset] = datasets.load_dataset(found, config, revision=commit, cache_dir=str(place))
    return tables


@contextmanager
def _loading(name: str) -> Iterator[None]:
    """Say in our words what `datasets` refuses; what the Hub refuses passes through."""
    import datasets
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except client.errors():
        raise  # kinds of OSError, which the last clause would take for a fault of the data
    except datasets.exceptions.DatasetNotFoundError as error:
        if isinstance(error.__cause__, HfHubHTTPError):
            raise error.__cause__ from None
        raise DataError(f"{name}: no such folder, and not on the Hub; check --data") from error
    except (OSError, ValueError, RuntimeError, TypeError, datasets.exceptions.DatasetsError) as error:
        _raise_if_full(error)
        raise DataError(f"{name}: cannot be loaded ({first_line(error)}); check --data and --data-config") from error
