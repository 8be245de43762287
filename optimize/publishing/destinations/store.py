"""An object store, or whatever else fsspec writes to: s3://, gs://, az://, abfs://, memory:// and others.

Objects appear one by one, so SHA256SUMS is put last: without it, what is there is no publication. Until then,
SHA256SUMS.unfinished says whose files these are, so that an upload that was killed goes on where it was. What is
replaced loses its SHA256SUMS once all files of new names are there, and can be read until then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Mapping
from pathlib import Path

from optimize.data.urls import without_secrets
from optimize.errors import RequestError
from optimize.files.objects import Objects, open_objects
from optimize.files.stores import require_writable
from optimize.interfaces import Progress
from optimize.publishing.checksums import CHECKSUMS, MOST_BYTES, UNLISTED, file_names, ordered, parse_checksums
from optimize.publishing.destinations.interface import Sent, Terms

UNFINISHED = f"{CHECKSUMS}.unfinished"


class Store:
    """The destination of any other address; what it names is a folder."""

    has = frozenset({"replace"})

    def check(self, place: str, terms: Terms) -> None:
        """Refuse an address that cannot be opened, or only for reading."""
        require_writable(place, without_secrets(place))
        _opened(place)

    def put(self, folder: Path, place: str, terms: Terms, progress: Progress) -> str:
        """Upload what is not there yet, remove what does not belong, and say last that it is complete."""
        objects = _opened(place)
        sums, names = (folder / CHECKSUMS).read_bytes(), file_names(folder)
        there = _sizes(objects)
        if set(there) - {UNFINISHED} == set(names) and objects.content(CHECKSUMS, MOST_BYTES + 1) == sums:
            if not terms.replace:
                objects.remove([UNFINISHED] if UNFINISHED in there else [])
                return place
        elif there and not terms.replace and not _is_unfinished(objects, there):
            raise RequestError(f"{objects.shown}: has other content; name a new folder, or add --replace")
        objects.write(UNFINISHED, sums)
        new = [name for name in names if name not in there and name not in UNLISTED]
        old = [name for name in names if name not in new and name != CHECKSUMS]
        for together in (new, old):
            if together is old:  # From here on, what was there is no longer whole.
                objects.remove([CHECKSUMS] if CHECKSUMS in there else [])
            for done, name in enumerate(together, 0 if together is new else len(new)):
                progress.step("upload", done, len(new) + len(old))
                if there.get(name) != (folder / name).stat().st_size or not _same(objects, name, folder):
                    objects.put(folder / name, name)
        objects.remove(sorted(set(there) - set(names) - {UNFINISHED}))
        objects.write(CHECKSUMS, sums)
        objects.remove([UNFINISHED])
        return place

    def read(self, place: str, progress: Progress) -> Generator[Sent]:
        """The objects below an address."""
        objects = _opened(place)
        there = _sizes(objects)
        if CHECKSUMS not in there:
            what = "an upload that was not finished is there" if UNFINISHED in there else "no publication is there"
            raise RequestError(f"{objects.shown}: {what}; check the address, or publish to it again")
        for name in ordered(set(there) - {UNFINISHED} - _begun(objects, there)):
            yield Sent(name, there[name], objects.chunks(name))


def _opened(place: str) -> Objects:
    return open_objects(place, without_secrets(place), what="the address")


def _sizes(objects: Objects) -> dict[str, int]:
    return {name: int(facts["size"]) for name, facts in objects.listed().items()}


def _begun(objects: Objects, there: Mapping[str, int]) -> set[str]:
    """The files that are of an upload alone which was not finished, and not of the publication that is there."""
    if UNFINISHED not in there:
        return set()
    begun, whole = (_checksums(objects, name) for name in (UNFINISHED, CHECKSUMS))
    return set(begun) - set(whole)


def _is_unfinished(objects: Objects, there: Mapping[str, int]) -> bool:
    """Whether all that is there was put by an upload that was not finished."""
    if UNFINISHED not in there or CHECKSUMS in there:
        return False
    return set(there) <= {*_checksums(objects, UNFINISHED), *UNLISTED, UNFINISHED}


def _checksums(objects: Objects, name: str) -> dict[str, str]:
    return parse_checksums(objects.content(name, MOST_BYTES + 1), objects.shown)


def _same(objects: Objects, name: str, folder: Path) -> bool:
    """Whether an object is what a file is, read back."""
    total = hashlib.sha256()
    for chunk in objects.chunks(name):
        total.update(chunk)
    with (folder / name).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest() == total.digest()
