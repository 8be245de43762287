"""Folders that `datasets` writes with `save_to_disk`: which of their Arrow files hold which split, and their tables.

The files are read as they are. What else such a folder can say, such as a format for rows or indices into another
table, is not followed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from optimize.data.files import Files, is_plain_name
from optimize.errors import DataError
from optimize.files.small import read_json

if TYPE_CHECKING:
    from datasets import Dataset

ARROW = ".arrow"
SEVERAL, ONE = "dataset_dict.json", "state.json"
"""What tells a folder of several splits, and one of a single split, from others."""
AGAIN = "save it again with save_to_disk"


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` wrote a folder."""
    return (folder / SEVERAL).exists() or (folder / ONE).exists()


def find_saved(folder: Path) -> dict[str, Files]:
    """The Arrow files of each split; a data set that is not split is all "train"."""
    if not (folder / SEVERAL).exists():
        return {"train": tuple(_arrow_files(folder))}
    splits = _read(folder / SEVERAL).get("splits")
    if not isinstance(splits, list) or not splits:
        raise DataError(f"{folder / SEVERAL}: names no splits; {AGAIN}")
    return {str(split): tuple(_arrow_files(_inside(folder, split))) for split in splits}


def read_columns(path: Path) -> tuple[str, ...]:
    """The names of an Arrow file's columns; nothing where no row follows. OSError, or ValueError."""
    import pyarrow

    with pyarrow.ipc.open_stream(path) as batches:
        return tuple(batches.schema.names) if any(batch.num_rows for batch in batches) else ()


def read_saved(files: Files, place: Path) -> Dataset:
    """The table of a split with its features. A copy in `place` is read, which nobody cuts short meanwhile."""
    import datasets

    tables = []
    for number, path in enumerate(files):
        copy = place / f"{path.parent.name}-{number}{ARROW}"
        shutil.copyfile(path, copy)
        tables.append(datasets.Dataset.from_file(str(copy)))
    return datasets.concatenate_datasets(tables)


def _arrow_files(folder: Path) -> Iterator[Path]:
    state = _read(folder / ONE)
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise DataError(f"{folder}: is a choice of rows of another table; {AGAIN}")
    listed = state.get("_data_files")
    if not isinstance(listed, list) or not listed:
        raise DataError(f"{folder / ONE}: names no data files; {AGAIN}")
    for each in listed:
        path = _inside(folder, each.get("filename") if isinstance(each, dict) else each)
        if path.suffix != ARROW or not path.is_file():
            raise DataError(f"{path}: is not an Arrow file that is there; copy all of the folder")
        yield path


def _inside(folder: Path, name: object) -> Path:
    """Something in a folder; refuses a name that leads out of it."""
    if not isinstance(name, str) or not is_plain_name(name):
        raise DataError(f"{folder}: names '{name}', which does not lie in it; {AGAIN}")
    return folder / name


def _read(path: Path) -> dict[str, object]:
    found = read_json(path, where=str(path), refusal=DataError, advice=AGAIN)
    if not isinstance(found, dict):
        raise DataError(f"{path}: is not a JSON object; {AGAIN}")
    return found
