"""Data sets, cut into splits that share no content.

A data set is a Hub id, a folder of `train/validation/test` files or that `datasets` saved, a file alone, an address, or
the embedded demo. The splits are calibration and tuning, which stages may look at, training, where a stage trains, and
certification, which the result is judged by. They are disjoint by content, labels aside: a text that occurs in
certification is in none of the others, however often the data set repeats it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from optimize.data.assembling import Origin, assemble
from optimize.data.classes import Config
from optimize.data.files import SPLITS, name_of
from optimize.data.hub import inspect_hub
from optimize.data.layout import Rows, first_present, match_layout, read_labels
from optimize.data.naming import classes_in
from optimize.data.opening import find_here, is_here, open_data, open_there
from optimize.data.read import peek_columns
from optimize.data.separated import note_on_lines
from optimize.data.urls import is_url, local_path, on_hub
from optimize.data.wanted import Splits, Wanted
from optimize.errors import DataError
from optimize.files.leftovers import owned_partial, sweep
from optimize.interfaces import Head, Progress, Silence

# Test splits come late: those of many public data sets have no labels.
CERTIFY_ON = ("validation", "validation_matched", "valid", "val", "dev", "test", "train")
CALIBRATE_ON = ("train", "validation", "validation_matched", "valid", "val", "dev", "test")


def inspect_data(wanted: Wanted, head: Head, *, progress: Progress | None = None) -> str | None:
    """Refuse, without reading it all, a data set that is absent or lacks a column; the commit of one on the Hub."""
    progress = progress or Silence()
    there = is_url(local_path(wanted.data))
    if not there and wanted.data != "demo" and not is_here(wanted.data):
        return inspect_hub(wanted.data, wanted.revision, progress)
    revision = None if on_hub(wanted.data) else wanted.revision
    for name, value in (("revision", revision), ("config", wanted.config if wanted.data == "demo" else None)):
        if value is not None:
            raise DataError(f"--data-{name}: '{wanted.name}' has no '{value}', only a Hub id may; leave it out")
    if wanted.data == "demo":
        _certification_split(wanted, list(SPLITS))
    elif there:
        return _inspect_address(wanted, progress)
    else:
        files = find_here(wanted)
        for split in dict.fromkeys(choose_splits(wanted, list(files))):
            match_layout(head, peek_columns(files[split]), wanted.columns, where=name_of(files[split]))
    return None


def _inspect_address(wanted: Wanted, progress: Progress) -> str | None:
    """Refuse an address at which nothing lies that can be used, or too much; nothing is downloaded."""
    with _new_place() as place:
        found = open_there(wanted, place, progress)
        found.check_sizes(dict.fromkeys(choose_splits(wanted, list(found.splits))))
        return found.remote.commit if found.remote else None


def load_splits(
    wanted: Wanted, head: Head, config: Config, *, new_classes: bool = False, progress: Progress | None = None
) -> Splits:
    """Read, rename columns to roles, match labels to the checkpoint's `config`, and cut.

    With `new_classes`, classes are those of the data, whatever the config says of any. Raises DataError where something
    does not fit; its message names the file and the lines of rows.
    """
    with _new_place() as place:
        found = open_data(wanted, head, place, progress or Silence())
        certify, calibrate = choose_splits(wanted, list(found.splits))

        def origin_of(split: str) -> Origin:
            files, table = found.files.get(split, ()), found.read(split)
            note = found.notes.get(split)
            where = name_of(files) if files else f"{wanted.name}: {'sample of ' if note else ''}split '{split}'"
            rows = Rows(table, head, wanted.columns, where=where, files=files)
            return Origin(split, rows, (note,) if note else ())

        with found.saying():
            certified = origin_of(certify)
            others = certified if calibrate == certify else origin_of(calibrate)
            tables = [certified.table] if others is certified else [certified.table, others.table]
            if new_classes:
                config = {**config, **classes_in(tables, head)}
            reading = read_labels(tables, head, config)
            splits = assemble(head, certified, others, wanted)
            used = [file for split in dict.fromkeys((certify, calibrate)) for file in found.files.get(split, ())]
            notes = [found.said(note) for note in map(note_on_lines, used) if note]
        labels = "; ".join(filter(None, (reading, head.scoring(splits.certification, config))))
        return replace(splits, notes=(*notes, *splits.notes), labels=labels, config=config)


@contextmanager
def _new_place() -> Iterator[Path]:
    """Where tables lie while rows are drawn from them: among temporary files, since a cache may be read alone."""
    root = Path(tempfile.gettempdir())
    sweep(root)
    with owned_partial(root, "data") as place:
        yield place


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
