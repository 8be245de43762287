"""A cache that machines share through a store: S3, Google's or Azure's, a disk of a server, or what else fsspec writes.

Each machine works in a folder of its own, a copy of what it needed: a cache like any other, which knows the store's
address. What is not there is looked for in the store before it is built, and what was built is put there. An entry is
one object, so it is there whole or not at all, and two writers of one entry do not mix; the last one wins. Whatever
comes from there has to be what was sealed, like an entry of a folder.

    <user's cache>/shared/<digest of the address>/    the copy
    <user's cache>/shared/<digest of the address>/address.txt

    <address>/<key>.tar     an entry; its material comes first, so that who lists entries need not read them whole
    <address>/README.txt    what all of it is
    <address>/.partial-…    being written, on disks
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from optimize.artifact import Kind, sealed_files
from optimize.cache.entries import (
    ARTIFACT,
    MATERIAL,
    RECORD,
    SUM,
    UNSENT,
    Entry,
    place_entry,
    read_entry,
)
from optimize.data.urls import local_path, without_secrets
from optimize.errors import OptimizeError, RequestError, UnavailableError
from optimize.files.leftovers import owned_partial
from optimize.files.objects import Objects, open_objects
from optimize.files.small import read_small
from optimize.files.stores import require_writable
from optimize.files.tars import pack, unpack
from optimize.interfaces import Progress
from optimize.machine.environment import cache_root

COPIES = "shared"
"""The folder of the user's cache that has the copies."""
ADDRESS, README = "address.txt", "README.txt"
SAYS = b"""Finished stages of distilbert-optimize, each a tar that is called by its key. `optimize cache ls` lists them,
`optimize cache gc` removes old ones, `optimize cache verify` checks them; each is told this address with --cache.
"""
READ = "read+"
"""What an address begins with from which entries are only taken."""
MOST_ADDRESS_BYTES = 2**12
MOST_BYTES = 2**34
"""Of an entry; the largest have about 2**29."""
MOST_FILES = 1000
MOST_NAME_BYTES = 255
"""Of a file's place in an entry."""
UNREADABLE = (tarfile.TarError, EOFError, ValueError, FileExistsError, NotADirectoryError, IsADirectoryError)
"""What unpacking fails with that is no tar of ours, or has two files in one place; not where this disk fails."""
TRIES = 3
"""How often an entry is fetched that others replace meanwhile."""


@dataclass(frozen=True)
class Shared:
    """A shared cache: the objects of its store, and whether any are put there."""

    objects: Objects
    writes: bool


def address_in(asked: Path | str | None) -> str | None:
    """The address of a shared cache, where that is asked for, and no folder; refuses one with a secret in it."""
    if not isinstance(asked, str) or "://" not in asked:
        return None
    rest = asked.partition("://")[2]
    user = rest.partition("/")[0].rpartition("@")[0]
    if ":" in user or not {"?", "#"}.isdisjoint(rest):
        raise RequestError(
            f"--cache: {shown(asked)}: holds a password or a query, which would be kept on this disk; give "
            "credentials in the environment"
        )
    local_path(asked.removeprefix(READ))  # of a file on another machine
    return asked


def shown(address: str) -> str:
    """An address as messages have it."""
    place = address.removeprefix(READ)
    return address[: len(address) - len(place)] + without_secrets(place)


def place_of(asked: Path | str | None) -> Path:
    """The folder that finished stages are kept in: the one asked for, a shared cache's copy, or else the user's."""
    if asked is None:
        return cache_root()
    address = address_in(asked)
    if address is None:
        return Path(asked)
    return cache_root() / COPIES / hashlib.sha256(address.rstrip("/").encode()).hexdigest()[:16]


def open_place(asked: Path | str | None) -> Path:
    """The same; the copy of a shared cache is there from then on, and knows the address."""
    place, address = place_of(asked), address_in(asked)
    if address is not None and address_of(place) != address:
        with owned_partial(place, "new") as folder:
            (folder / ADDRESS).write_text(f"{address}\n", encoding="utf-8")
            os.replace(folder / ADDRESS, place / ADDRESS)
    return place


def address_of(root: Path) -> str | None:
    """The address of the shared cache that a folder is the copy of; None for any other folder."""
    file = root / ADDRESS
    if not os.path.lexists(file):
        return None
    text = read_small(file, most=MOST_ADDRESS_BYTES, where=str(file), refusal=RequestError, advice="remove it")
    return address_in(text.strip())


def reach(address: str, *, refusal: type[OptimizeError] = RequestError, then: str = "") -> Shared:
    """The shared cache at an address. Raises `refusal` for what cannot be one, and UnavailableError."""
    place = address.removeprefix(READ)
    if writes := place == address:
        require_writable(place, shown(address))
    return Shared(open_objects(place, shown(address), what="--cache", refusal=refusal, then=then), writes)


def require_reachable(address: str) -> None:
    """Refuse a shared cache that cannot be read, and a new one that cannot be written to."""
    shared = reach(address)
    if shared.objects.facts(README) is not None:
        return
    if not shared.writes:
        raise RequestError(f"{shared.objects.shown}: no shared cache is there; check --cache")
    shared.objects.write(README, SAYS)


def sends(root: Path) -> bool:
    """Whether what is built in a folder goes into a store."""
    address = address_of(root)
    return address is not None and not address.startswith(READ)


def receive(root: Path, key: str, kind: Kind, progress: Progress) -> Entry | None:
    """The entry of a key from the store that `root` is the copy of, if it is there and sound."""
    shared = _shared_by(root)
    if shared is None or shared.objects.facts(object_name(key)) is None:
        return None
    with owned_partial(root, key) as folder:
        entry = download(shared, folder, progress)
        if entry is not None and entry.artifact.kind == kind:
            return place_entry(entry, folder, root)
    progress.say(f"cache: {shared.objects.shown}/{object_name(key)} is damaged; it is built again")
    return None


def send(root: Path, key: str, progress: Progress) -> None:
    """Put an entry into the store that is yet to get it; it was built just now, or when the store failed."""
    unsent = root / key / UNSENT
    if not unsent.exists() or (shared := _shared_by(root)) is None:
        return
    with owned_partial(root, key) as folder:
        tar = folder / object_name(key)
        with tar.open("xb") as out:
            pack(_files_of(root / key), out)
        with _shown(progress, "upload", key, tar.stat().st_size):
            shared.objects.put_whole(tar, object_name(key))
    unsent.unlink(missing_ok=True)


def _shared_by(root: Path) -> Shared | None:
    address = address_of(root)
    if address is None:
        return None
    then = f"; what is finished is kept in {root}, and the same command goes on from there"
    return reach(address, refusal=UnavailableError, then=then)


def object_name(key: str) -> str:
    """What an entry's object is called."""
    return f"{key}.tar"


def _files_of(folder: Path) -> Mapping[str, Path]:
    """An entry's files by their places in it, its material first."""
    names = [MATERIAL, RECORD, SUM]
    names += [path.relative_to(folder).as_posix() for path in sealed_files(folder / ARTIFACT)]
    return {name: folder / name for name in names}


def download(shared: Shared, folder: Path, progress: Progress) -> Entry | None:
    """The entry of the key that an empty folder is called by, downloaded into it; None where there is none, or damaged.

    Raises OSError where this machine's disk fails.
    """
    name, tar = object_name(folder.name), folder.with_suffix(".tar")
    for _ in range(TRIES):
        before = shared.objects.facts(name)
        size = int((before or {}).get("size") or 0)
        if before is None or size > MOST_BYTES:
            return None
        with _shown(progress, "download", folder.name, size):
            there = shared.objects.get(name, tar)
        entry = _unpacked(tar, folder) if there else None
        if entry is not None or shared.objects.facts(name) == before:
            return entry
        # It was replaced meanwhile, and a client that downloads parts of it at a time may have had some of each.
        shutil.rmtree(folder)
        folder.mkdir()
    return None


def _unpacked(tar: Path, folder: Path) -> Entry | None:
    """The entry in a tar, unpacked; None where it is none, or not of the key that the folder is called by."""
    try:
        with tar.open("rb") as stream:
            for number, member in enumerate(unpack(stream)):
                if number == MOST_FILES or not _is_place(member.name):
                    return None
                file = folder / member.name
                file.parent.mkdir(parents=True, exist_ok=True)
                with file.open("xb") as out:
                    out.writelines(member.chunks)
    except UNREADABLE:
        return None
    return read_entry(folder)


def _is_place(name: str) -> bool:
    """Whether a name is of one of an entry's files, and leads nowhere else."""
    if len(os.fsencode(name)) > MOST_NAME_BYTES:
        return False
    first, *rest = name.split("/")
    return name in (MATERIAL, RECORD, SUM) or (first == ARTIFACT and bool(rest) and {"", ".", ".."}.isdisjoint(rest))


@contextmanager
def _shown(progress: Progress, what: str, key: str, size_bytes: int) -> Iterator[None]:
    """Shows what is under way: an entry's so many bytes. Clients count them in threads that nothing may interrupt."""
    name, megabytes = f"cache: {what} {key[:12]}, MB", 1 + size_bytes // 10**6
    progress.step(name, 0, megabytes)
    yield
    progress.step(name, megabytes, megabytes)
