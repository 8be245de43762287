"""What a data set is, by how it is named: the demo, files of this machine, files at an address, or one of the Hub."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from optimize.data.files import Files
from optimize.data.hub import open_hub
from optimize.data.layout import match_layout
from optimize.data.read import find_tables, read_file, renamed
from optimize.data.remote import Remote, open_hub_path, open_url
from optimize.data.urls import is_url, local_path, on_hub
from optimize.data.wanted import Wanted
from optimize.demo.generate import generate_rows
from optimize.interfaces import Head, Progress
from optimize.request import user_path

if TYPE_CHECKING:
    from optimize.data.read import Table


SPARE = 2
"""Of a sampled data set, so many times the rows that are asked for: some are there twice, some cannot be used."""


@dataclass(frozen=True)
class DataSet:
    """A data set's splits, what reads the table of one, and the files that hold it where there are such.

    What lies at an address has a `remote`, and a path of this machine that stands for it, its `root`. Once a split was
    read, `notes` say how, where that is not as a whole.
    """

    splits: Sequence[str]
    read: Callable[[str], Table]
    files: Mapping[str, Files] = field(default_factory=dict)
    remote: Remote | None = None
    root: Path = Path()
    notes: Mapping[str, str] = field(default_factory=dict)

    def said(self, text: str) -> str:
        """Text that names an address in place of the path that stands for it."""
        return text.replace(str(self.root), self.remote.shown) if self.remote else text

    def saying(self) -> AbstractContextManager[None]:
        """Let refusals name an address in place of the path that stands for it."""
        return renamed(str(self.root), self.remote.shown) if self.remote else nullcontext()

    def check_sizes(self, splits: Iterable[str]) -> None:
        """Refuse splits at an address that are too large to be downloaded, as far as that is known."""
        for split in splits:
            if self.remote:
                self.remote.check_size(self.root, self.files[split])


def is_here(data: str) -> bool:
    """Whether data are a folder or a file of this machine."""
    path = local_path(data)
    return not is_url(path) and (user_path(path, "--data").is_dir() or user_path(path, "--data").is_file())


def find_here(wanted: Wanted) -> dict[str, Files]:
    """The files of each split of what lies on this machine."""
    return find_tables(user_path(local_path(wanted.data), "--data"), wanted.config)


def open_there(wanted: Wanted, place: Path, progress: Progress) -> DataSet:
    """Files at an address, which are downloaded into `place` once a split of them is read."""
    found = on_hub(wanted.data)
    if found:
        remote = open_hub_path(found._replace(revision=wanted.revision), wanted.data, progress)
    else:
        remote = open_url(wanted.data, wanted.config, progress)
    root = remote.lay_out(place)
    nothing = DataSet((), list, remote=remote, root=root)
    with nothing.saying():
        files = find_tables(root, wanted.config)

    def read(split: str) -> Table:
        remote.fill(root, files[split])
        return read_file(files, place, split)

    return DataSet(list(files), read, files, remote, root)


def open_data(wanted: Wanted, head: Head, place: Path, progress: Progress) -> DataSet:
    """The data set that is wanted; its tables lie in `place` once they are read."""
    if wanted.data == "demo":
        generated = generate_rows(head.name, wanted.seed)
        return DataSet(list(generated), generated.__getitem__)
    if is_url(local_path(wanted.data)):
        return open_there(wanted, place, progress)
    if is_here(wanted.data):
        files = find_here(wanted)
        return DataSet(list(files), functools.partial(read_file, files, place), files)

    def choose(present: list[str]) -> list[str]:
        return sorted(set(match_layout(head, present, wanted.columns, where=wanted.name).values()))

    hub = open_hub(
        wanted.data,
        wanted.config,
        wanted.revision,
        place,
        rows=SPARE * wanted.rows,
        seed=wanted.seed,
        choose=choose,
    )
    return DataSet(hub.splits, hub.read, notes=hub.notes)
