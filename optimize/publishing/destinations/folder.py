"""A folder on this machine's disks, filled beside its place and renamed into it."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from functools import partial
from pathlib import Path

from optimize.artifact import CHUNK_BYTES
from optimize.errors import RequestError, SealError
from optimize.files.assembling import assembled
from optimize.interfaces import Progress
from optimize.publishing.checksums import CHECKSUMS, SIGNATURE, faults, file_names
from optimize.publishing.destinations.interface import Sent, Terms
from optimize.refusals import check_place
from optimize.request import user_path

WHERE = "the folder to publish to"


class Folder:
    """The destination of paths; a folder that is new, empty, or has the same publication."""

    has = frozenset({"replace"})

    def check(self, place: str, terms: Terms) -> None:
        """Refuse what is a link or no folder, and a place that cannot be written to."""
        if user_path(place, WHERE).is_symlink():
            raise RequestError(f"{place}: is a link; name the folder itself, which must be new or empty")
        found = Path(place).resolve()
        for folder in (found, *found.parents):
            if folder.exists() and not folder.is_dir():
                raise RequestError(f"{folder}: is not a folder; name a new or empty folder to publish to")
        check_place(found.parent, WHERE)

    def put(self, folder: Path, place: str, terms: Terms, progress: Progress) -> str:
        """Rename a copy into place; what was there goes at the same moment, as far as a disk knows one."""
        there = Path(place).resolve()
        if there.exists() and any(there.iterdir()):
            if _same(folder, there):
                return str(there)
            if not terms.replace:
                raise RequestError(f"{place}: has other content; name a new or empty folder, or add --replace")
        with assembled(there.parent, there.name) as copy:
            shutil.copytree(folder, copy, dirs_exist_ok=True)
            if there.exists():
                there.rename(copy.with_name(f"{there.name}.replaced"))  # goes with the partial folder
            copy.rename(there)
        return str(there)

    def read(self, place: str, progress: Progress) -> Generator[Sent]:
        """The files of a folder."""
        folder = Path(place)
        for name in file_names(folder):
            with (folder / name).open("rb") as stream:
                yield Sent(name, (folder / name).stat().st_size, iter(partial(stream.read, CHUNK_BYTES), b""))


def _same(folder: Path, there: Path) -> bool:
    """Whether a publication lies there already, whole; signatures of the same differ from one another."""
    sums = there / CHECKSUMS
    if not sums.is_file() or sums.read_bytes() != (folder / CHECKSUMS).read_bytes():
        return False
    if (there / SIGNATURE).exists() != (folder / SIGNATURE).exists():
        return False
    try:
        return not any(faults(there))
    except SealError:
        return False
