"""Data sets, cut into splits that share no content.

A data set is a Hub id, a folder of `train/validation/test` files or that `datasets` saved, a file alone, an address, or
the embedded demo. The splits are calibration and tuning, which stages may look at, training, where a stage trains, and
certification, which the result is judged by. They are disjoint by content, labels aside: a text that occurs in
certification is in none of the others, however often the data set repeats it.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from optimize.data.assembling import Origin, assemble
from optimize.data.files import SPLITS, Files, name_of
from optimize.data.hub import inspect_hub, read_hub
from optimize.data.labels import Config
from optimize.data.layout import Rows, first_present, match_layout
from optimize.data.read import find_tables, peek_columns, read_file
from optimize.data.separated import note_on_lines
from optimize.data.wanted import Splits, Wanted
from optimize.demo.generate import generate_rows
from optimize.errors import DataError
from optimize.files.leftovers import owned_partial, sweep
from optimize.interfaces import Head, Progress, Silence
from optimize.request import user_path

if TYPE_CHECKING:
    from optimize.data.read import Table

# Test splits come late: those of many public data sets have no labels.
CERTIFY_ON = ("validation", "validation_matched", "valid", "val", "dev", "test", "train")
CALIBRATE_ON = ("train", "validation", "validation_matched", "valid", "val", "dev", "test")


@dataclass(frozen=True)
class DataSet:
    """A data set's splits, what reads the table of one, and the files that hold it where there are such."""

    splits: Sequence[str]
    read: Callable[[str], Table]
    files: Mapping[str, Files] = field(default_factory=dict)


def inspect_data(wanted: Wanted, head: Head, *, progress: Progress | None = None) -> str | None:
    """Refuse, without reading it all, a data set that is absent or lacks a column; the commit of a Hub id."""
    if wanted.data != "demo" and not _is_here(wanted.data):
        return inspect_hub(wanted.data, wanted.revision, progress or Silence())
    if wanted.revision is not None:
        raise DataError(f"--data-revision: '{wanted.name}' has no '{wanted.revision}', only a Hub id may; leave it out")
    if wanted.data == "demo":
        if wanted.config is not None:
            raise DataError(f"--data-config: the demo has no '{wanted.config}'; leave it out")
        _certification_split(wanted, list(SPLITS))
        return None
    files = find_tables(user_path(wanted.data, "--data"), wanted.config)
    for split in dict.fromkeys(choose_splits(wanted, list(files))):
        match_layout(head, peek_columns(files[split]), wanted.columns, where=name_of(files[split]))
    return None


def load_splits(wanted: Wanted, head: Head, config: Config) -> Splits:
    """Read, rename columns to roles, match labels to the checkpoint's `config`, and cut.

    Raises DataError where something does not fit; its message names the file and the lines of rows.
    """
    with _new_place() as place:
        found = _open(wanted, head, place)
        certify, calibrate = choose_splits(wanted, list(found.splits))

        def origin_of(split: str) -> Origin:
            files = found.files.get(split, ())
            where = name_of(files) if files else f"{wanted.name}: split '{split}'"
            return Origin(split, Rows(found.read(split), head, config, wanted.columns, where=where, files=files))

        certified = origin_of(certify)
        others = certified if calibrate == certify else origin_of(calibrate)
        splits = assemble(head, certified, others, wanted)
        used = [file for split in dict.fromkeys((certify, calibrate)) for file in found.files.get(split, ())]
        return replace(splits, notes=(*filter(None, map(note_on_lines, used)), *splits.notes))


@contextmanager
def _new_place() -> Iterator[Path]:
    """Where tables lie while rows are drawn from them: among temporary files, since a cache may be read alone."""
    root = Path(tempfile.gettempdir())
    sweep(root)
    with owned_partial(root, "data") as place:
        yield place


def _open(wanted: Wanted, head: Head, place: Path) -> DataSet:
    if wanted.data == "demo":
        generated = generate_rows(head.name, wanted.seed)
        return DataSet(list(generated), generated.__getitem__)
    if _is_here(wanted.data):
        files = find_tables(user_path(wanted.data, "--data"), wanted.config)
        return DataSet(list(files), functools.partial(read_file, files, place), files)
    tables = read_hub(wanted.data, wanted.config, wanted.revision, place)
    return DataSet(list(tables), tables.__getitem__)


def choose_splits(wanted: Wanted, present: Sequence[str]) -> tuple[str, str]:
    """The split that certifies and the one to calibrate on; the same where there is only one."""
    certify = _certification_split(wanted, present)
    others = list(present)
    others.remove(certify)
    return certify, first_present((*CALIBRATE_ON, *others), others) or certify


def _certification_split(wanted: Wanted, present: Sequence[str]) -> str:
    asked = wanted.certify_on
    if asked is not None:
        usual = asked
        for split, names in SPLITS.items():
            if asked in names:
                usual = split  # "dev" finds the file dev.jsonl, which is split "validation"
        found = first_present((asked, usual), present)
        if found is None:
            raise DataError(f"{wanted.name}: no split '{asked}'; there are {', '.join(present)}; check --certify-on")
        return found
    return first_present(CERTIFY_ON, present) or present[0]


def _is_here(data: str) -> bool:
    """Whether data are a folder or a file of this machine."""
    path = user_path(data, "--data")
    return path.is_dir() or path.is_file()
