"""Data at an address: what lies there, as `fsspec` lists it, and its files, downloaded whole before they are read.

Only files that are called like tables are seen, and only those of the splits that are used are fetched. Messages name
the address without credentials, and quote nothing of what libraries say, which may repeat them.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from optimize.data.files import PLACES, Files, is_plain_name, split_of
from optimize.data.forms import form_of
from optimize.data.urls import OnHub, without_secrets
from optimize.errors import DataError
from optimize.files.stores import asking, open_store
from optimize.hub.patience import ANSWER_SECONDS, CONNECT_SECONDS, SILENT_SECONDS, SLOWEST_BYTES_PER_SECOND, answer
from optimize.hub.refusals import Repository
from optimize.hub.repository import download, inspect_repository
from optimize.interfaces import Progress

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

MOST_BYTES = 2**34
"""Of a split's files together; what is larger is better fetched by what can go on where it stopped."""
CHUNK_BYTES = 2**20
DEEPEST = 3
"""Folders below an address: a configuration, `data`, and a split."""
Fetch = Callable[[str, Path], None]
"""Downloads the file of a name to a path."""


@dataclass(frozen=True)
class Remote:
    """What lies at an address: names of files below it with their sizes where these are known, and what fetches one.

    `shown` is the address as messages have it. An address of a file has one name, the file's, and is `alone`.
    """

    shown: str
    sizes: Mapping[str, int | None]
    alone: bool
    fetch: Fetch
    commit: str | None = None

    def lay_out(self, place: Path) -> Path:
        """A folder or file like it in `place`, without content yet; its path stands for the address."""
        root = place / "remote"
        root.mkdir()
        for name in self.sizes:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).touch()
        return root / next(iter(self.sizes)) if self.alone else root

    def check_size(self, root: Path, files: Files) -> None:
        """Refuse a split whose files are too large, as far as their sizes are known."""
        if sum(self.sizes[self._name_of(root, path)] or 0 for path in files) > MOST_BYTES:
            raise self._too_large()

    def fill(self, root: Path, files: Files) -> None:
        """Download the files of a split to where `lay_out` put them."""
        self.check_size(root, files)
        left = MOST_BYTES
        for path in files:
            self.fetch(self._name_of(root, path), path)
            left -= path.stat().st_size
        if left < 0:
            raise self._too_large()

    def _name_of(self, root: Path, path: Path) -> str:
        return path.name if self.alone else path.relative_to(root).as_posix()

    def _too_large(self) -> DataError:
        return DataError(
            f"{self.shown}: is larger than {MOST_BYTES // 2**30} GiB; download it and name the folder, or make it less"
        )


def open_hub_path(found: OnHub, data: str, progress: Progress) -> Remote:
    """A file or folder of a Hub data set at a commit; its files go through the Hub's cache, as all of the Hub's do."""
    asked = Repository("dataset", found.name, found.revision, "--data", DataError)
    commit, names = inspect_repository(asked, progress)
    pinned = Repository("dataset", found.name, commit, "--data", DataError)
    alone = found.path in names
    folder = str(PurePosixPath(found.path).parent) if alone else found.path
    inside = [name for name in sorted(names) if name == found.path or (not alone and name.startswith(f"{found.path}/"))]
    sizes = {str(PurePosixPath(name).relative_to(folder)): None for name in inside}
    if not sizes:
        raise DataError(f"{without_secrets(data)}: is not in that data set; check --data")

    def fetch(name: str, target: Path) -> None:
        whole = str(PurePosixPath(folder) / name)
        shutil.copyfile(download(pinned, [whole]) / whole, target)

    return Remote(without_secrets(data), sizes, alone, fetch, commit)


def open_url(url: str, config: str | None, progress: Progress) -> Remote:
    """What lies at any other address; refuses what cannot be reached, with what is missing for it."""
    shown = without_secrets(url).rstrip("/")
    system, path = _system_of(url, shown)
    name = PurePosixPath(urlsplit(url).path).name
    alone = form_of(PurePosixPath(name)) is not None and not urlsplit(url).path.endswith("/")

    def ask() -> dict[str, int | None]:
        return {name: _size(system.info(path))} if alone else dict(_listed(system, path, config))

    with asking(shown, refusal=DataError, what="--data"):
        sizes = answer(ask, about=shown, progress=progress, whom="an answer")

    def fetch(name: str, target: Path) -> None:
        with asking(shown, refusal=DataError, what="--data"):
            for received in _download(system, path if alone else _below(path, name), target, shown):
                done, size = received // 10**6, (sizes[name] or received) // 10**6
                progress.step(f"download {target.name}, MB", done, max(1, done, size))

    return Remote(shown, sizes, alone, fetch)


def _system_of(url: str, shown: str) -> tuple[AbstractFileSystem, str]:
    """The file system of an address, and the path in it."""
    options = _options(url.partition("://")[0].lower())
    return open_store(url, shown, refusal=DataError, what="--data", **options)


def _options(scheme: str) -> dict[str, Any]:
    if scheme not in ("http", "https"):
        return {}
    import aiohttp

    limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENT_SECONDS)
    # What is stored is what is wanted: a server may take .gz for a way of sending, and a client would unpack it.
    headers = {"Accept-Encoding": "identity"}
    client = {"timeout": limits, "trust_env": True, "auto_decompress": False, "headers": headers}
    return {"client_kwargs": client, "skip_instance_cache": True, "simple_links": False}


def _listed(system: AbstractFileSystem, root: str, config: str | None) -> Iterator[tuple[str, int | None]]:
    """Tables in a folder and in those of its folders where splits may be; names that lead elsewhere are passed over."""
    folders = [PurePosixPath(config)] if config and is_plain_name(config) else [PurePosixPath()]
    while folders:
        folder = folders.pop()
        for entry in system.ls(_below(root, str(folder)) if folder.parts else root, detail=True):
            name = PurePosixPath(str(entry["name"]).rstrip("/")).name
            if not is_plain_name(name):
                continue
            if form_of(PurePosixPath(name)):
                yield str(folder / name), _size(entry)
            elif entry["type"] == "directory" and len(folder.parts) < DEEPEST and (name in PLACES or split_of(name)):
                folders.append(folder / name)


def _below(path: str, name: str) -> str:
    """The path of something in a folder; what an address asks with, such as a token, is asked with for all of it."""
    folder, mark, query = path.partition("?") if "://" in path else (path, "", "")
    return f"{folder.rstrip('/')}/{name}{mark}{query}"


def _size(entry: Mapping[str, Any]) -> int | None:
    return int(entry["size"]) if entry.get("size") is not None else None


def _download(system: AbstractFileSystem, path: str, target: Path, shown: str) -> Iterator[int]:
    """One file to its end, and how many bytes have come; TimeoutError where next to none do, DataError for too many."""
    began, received = time.monotonic(), 0
    # Without a block size, http sends the whole in one answer, whether or not it says how much that is.
    streaming = {"block_size": 0} if "://" in path else {}
    with system.open(path, "rb", **streaming) as source, target.open("wb") as out:
        while chunk := source.read(CHUNK_BYTES):
            received += len(chunk)
            seconds = time.monotonic() - began
            if received > MOST_BYTES:
                raise DataError(f"{shown}: is larger than {MOST_BYTES // 2**30} GiB; download it and name the folder")
            if seconds > ANSWER_SECONDS and received < SLOWEST_BYTES_PER_SECOND * seconds:
                raise TimeoutError
            out.write(chunk)
            yield received
