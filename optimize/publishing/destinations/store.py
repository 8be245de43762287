"""An object store, or whatever else fsspec writes to: s3://, gs://, az://, abfs://, memory:// and others.

Objects appear one by one, so SHA256SUMS is put last: without it, what is there is no publication. Until then,
SHA256SUMS.unfinished says whose files these are, so that an upload that was killed goes on where it was. What is
replaced loses its SHA256SUMS once all files of new names are there, and can be read until then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from optimize.artifact import CHUNK_BYTES
from optimize.data.urls import without_secrets
from optimize.errors import RequestError
from optimize.files.stores import asking, open_store
from optimize.interfaces import Progress
from optimize.publishing.checksums import CHECKSUMS, MOST_BYTES, UNLISTED, file_names, ordered, parse_checksums
from optimize.publishing.destinations.interface import Sent, Terms

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

UNFINISHED = f"{CHECKSUMS}.unfinished"
WHAT = "the address"
ONLY_READ = frozenset({"data", "gist", "git", "github", "http", "https"})
"""What fsspec opens and nobody can write to through it; no file system says that of itself."""


class Store:
    """The destination of any other address; what it names is a folder."""

    has = frozenset({"replace"})

    def check(self, place: str, terms: Terms) -> None:
        """Refuse an address that cannot be opened, or only for reading."""
        if place.partition("://")[0].lower() in ONLY_READ:
            raise RequestError(f"{without_secrets(place)}: can only be read; name a place that can be written to")
        _opened(place)

    def put(self, folder: Path, place: str, terms: Terms, progress: Progress) -> str:
        """Upload what is not there yet, remove what does not belong, and say last that it is complete."""
        system, root = _opened(place)
        sums, names = (folder / CHECKSUMS).read_bytes(), file_names(folder)
        there = _listed(system, root, place)
        if set(there) - {UNFINISHED} == set(names) and _content(system, root, CHECKSUMS, place) == sums:
            if not terms.replace:
                _remove(system, root, [UNFINISHED] if UNFINISHED in there else [], place)
                return place
        elif there and not terms.replace and not _is_unfinished(system, root, there, place):
            raise RequestError(f"{without_secrets(place)}: has other content; name a new folder, or add --replace")
        with _asking(place):
            system.pipe_file(_below(root, UNFINISHED), sums)
        new = [name for name in names if name not in there and name not in UNLISTED]
        old = [name for name in names if name not in new and name != CHECKSUMS]
        for together in (new, old):
            if together is old:  # From here on, what was there is no longer whole.
                _remove(system, root, [CHECKSUMS] if CHECKSUMS in there else [], place)
            for done, name in enumerate(together, 0 if together is new else len(new)):
                progress.step("upload", done, len(new) + len(old))
                if there.get(name) != (folder / name).stat().st_size or not _same(system, root, name, folder, place):
                    with _asking(place):
                        system.put_file(str(folder / name), _below(root, name))
        _remove(system, root, sorted(set(there) - set(names) - {UNFINISHED}), place)
        with _asking(place):
            system.pipe_file(_below(root, CHECKSUMS), sums)
        _remove(system, root, [UNFINISHED], place)
        return place

    def read(self, place: str, progress: Progress) -> Generator[Sent]:
        """The objects below an address."""
        system, root = _opened(place)
        there = _listed(system, root, place)
        if CHECKSUMS not in there:
            what = "an upload that was not finished is there" if UNFINISHED in there else "no publication is there"
            raise RequestError(f"{without_secrets(place)}: {what}; check the address, or publish to it again")
        for name in ordered(set(there) - {UNFINISHED} - _begun(system, root, there, place)):
            yield Sent(name, there[name], _chunks(system, root, name, place))


def _begun(system: AbstractFileSystem, root: str, there: Mapping[str, int], place: str) -> set[str]:
    """The files that are of an upload alone which was not finished, and not of the publication that is there."""
    if UNFINISHED not in there:
        return set()
    begun, whole = (
        parse_checksums(_content(system, root, name, place), without_secrets(place)) for name in (UNFINISHED, CHECKSUMS)
    )
    return set(begun) - set(whole)


def _opened(place: str) -> tuple[AbstractFileSystem, str]:
    """The file system of an address, and the path in it."""
    shown = without_secrets(place)
    with _asking(place):
        system, root = open_store(place, shown, refusal=RequestError, what=WHAT)
    if not root.strip("/"):
        raise RequestError(f"{shown}: names no folder; add one")
    return system, root.rstrip("/")


def _below(root: str, name: str) -> str:
    return f"{root}/{name}"


def _listed(system: AbstractFileSystem, root: str, place: str) -> dict[str, int]:
    """The names of all objects below an address, and their sizes."""
    with _asking(place):
        system.invalidate_cache()
        if not system.exists(root):
            return {}
        found = system.find(root, detail=True)
        return {str(path).removeprefix(f"{root}/"): int(facts["size"]) for path, facts in found.items()}


def _is_unfinished(system: AbstractFileSystem, root: str, there: Mapping[str, int], place: str) -> bool:
    """Whether all that is there was put by an upload that was not finished."""
    if UNFINISHED not in there or CHECKSUMS in there:
        return False
    begun = parse_checksums(_content(system, root, UNFINISHED, place), without_secrets(place))
    return set(there) <= {*begun, *UNLISTED, UNFINISHED}


def _content(system: AbstractFileSystem, root: str, name: str, place: str) -> bytes:
    with _asking(place), system.open(_below(root, name), "rb") as stream:
        content: bytes = stream.read(MOST_BYTES + 1)
    return content


def _remove(system: AbstractFileSystem, root: str, names: list[str], place: str) -> None:
    with _asking(place):
        for name in names:
            system.rm_file(_below(root, name))


def _same(system: AbstractFileSystem, root: str, name: str, folder: Path, place: str) -> bool:
    """Whether an object is what a file is, read back."""
    total = hashlib.sha256()
    for chunk in _chunks(system, root, name, place):
        total.update(chunk)
    with (folder / name).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest() == total.digest()


def _chunks(system: AbstractFileSystem, root: str, name: str, place: str) -> Iterator[bytes]:
    with _asking(place), system.open(_below(root, name), "rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            yield chunk


def _asking(place: str) -> AbstractContextManager[None]:
    return asking(without_secrets(place), refusal=RequestError, what=WHAT)
