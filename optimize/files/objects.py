"""What lies below an address of a store, by name: objects that are listed, read, put and removed.

What is raised is what `optimize.files.stores` makes of it.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimize.errors import OptimizeError, RequestError, UnavailableError
from optimize.files.copies import CHUNK_BYTES
from optimize.files.stores import BUILT_IN, asking, open_store

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

WHOLE = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "adl", "memory"})
"""Protocols of stores where an object appears once all of it is there, and folders are but parts of names."""
PARTIAL = ".partial-"
"""How the names of files begin that are being written, where a file is seen while it is."""
WRITTEN = ("LastModified", "last_modified", "mtime", "updated", "created")
"""Where stores say when an object was written, the last time first: S3, Azure, Google and disks, memory."""
Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Objects:
    """The objects below an address, `shown` without credentials; `what`, `refusal` and `then` are those of `asking`."""

    system: AbstractFileSystem
    root: str
    shown: str
    what: str
    refusal: type[OptimizeError]
    then: str = ""

    def asking(self) -> AbstractContextManager[None]:
        """Says in our words what libraries raise meanwhile."""
        return asking(self.shown, refusal=self.refusal, what=self.what, then=self.then)

    @property
    def writes_whole(self) -> bool:
        """Whether what is put is seen once all of it is there."""
        known = self.system.protocol
        return not WHOLE.isdisjoint([known] if isinstance(known, str) else known)

    def listed(self) -> dict[str, Facts]:
        """What the store says of each object, by name: `size` in bytes, and more in words of its own."""
        with self.asking():
            self.system.invalidate_cache()
            if not self.system.exists(self.root):
                return {}
            found = self.system.find(self.root, detail=True)
        return {str(path).removeprefix(f"{self.root}/"): facts for path, facts in found.items()}

    def facts(self, name: str) -> Facts | None:
        """What the store says of an object; None where there is none."""
        with self.asking():
            self.system.invalidate_cache()
            try:
                found: Facts = self.system.info(self._path(name))
            except FileNotFoundError:
                return None
        if found["type"] != "file":  # on disks there are folders, links to devices, and pipes, too
            return None
        return {name: value for name, value in found.items() if name != "time"}  # SFTP's, of who read it last

    def written(self, facts: Facts) -> float:
        """When an object was written, in seconds since 1970; raises UnavailableError where the store does not say."""
        for name in WRITTEN:
            when = facts.get(name)
            if isinstance(when, str) and when:
                when = datetime.fromisoformat(when)
            if isinstance(when, datetime):
                return when.timestamp()
            if isinstance(when, int | float):
                return float(when)
        raise UnavailableError(f"{self.shown}: does not say when its objects were written; name another store")

    def chunks(self, name: str) -> Iterator[bytes]:
        """The content of an object."""
        with self.asking(), self.system.open(self._path(name), "rb") as stream:
            while chunk := stream.read(CHUNK_BYTES):
                yield chunk

    def content(self, name: str, most: int) -> bytes:
        """The content of an object up to so many bytes."""
        with self.asking(), self.system.open(self._path(name), "rb") as stream:
            found: bytes = stream.read(most)
        return found

    def beginnings(self, sizes: Mapping[str, int], most: int) -> dict[str, bytes]:
        """The first bytes of objects of known sizes, asked for at once; of what is not there any more, none."""
        names = [name for name, size in sizes.items() if size]  # an empty one has no part that could be asked for
        ends = [min(sizes[name], most) for name in names]
        found: dict[str, bytes] = {}
        with self.asking():
            parts = self.system.cat_ranges([self._path(name) for name in names], [0] * len(names), ends)
            for name, part in zip(names, parts, strict=True):
                if isinstance(part, bytes):
                    found[name] = part
                elif not isinstance(part, FileNotFoundError):
                    raise part
        return found

    def get(self, name: str, file: Path) -> bool:
        """Download an object over a file; False where it is not there."""
        with self.asking():
            try:
                self.system.get_file(self._path(name), str(file))
            except FileNotFoundError:
                return False
        return True

    def write(self, name: str, content: bytes) -> None:
        """Put an object that is small."""
        with self.asking():
            self._make_room(name)
            self.system.pipe_file(self._path(name), content)

    def put(self, file: Path, name: str) -> None:
        """Put a file."""
        with self.asking():
            self._make_room(name)
            self.system.put_file(str(file), self._path(name))

    def put_whole(self, file: Path, name: str) -> None:
        """Put a file so that whoever reads sees all of it or none. The last to put it is who wins."""
        try:
            with self.asking(), self._placed(name) as path:
                self.system.put_file(str(file), path)
        except OSError as error:  # of a full disk, which is the store's: this machine's is only read
            raise UnavailableError(f"{self.shown}: its disk is full; free some space there{self.then}") from error

    @contextmanager
    def _placed(self, name: str) -> Iterator[str]:
        """Where to write what is then seen under a name: there, or beside it, where a file is seen while it grows."""
        path = self._path(name)
        if self.writes_whole:
            yield path
            return
        self._make_room(name)
        beside = self._path(f"{PARTIAL}{secrets.token_hex(8)}")
        try:
            yield beside
            if self.system.isdir(path):  # which others would move it into
                raise self.refusal(f"{self.shown}: its {name} is a folder; move that away{self.then}")
            self.system.mv(beside, path)
        finally:
            with suppress(*BUILT_IN):
                self.system.rm_file(beside)

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects; what others have just removed is no fault."""
        with self.asking():
            for name in names:
                with suppress(FileNotFoundError):
                    self.system.rm_file(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}"

    def _make_room(self, name: str) -> None:
        """Make the folder of a name, where a store has folders; buckets are not made."""
        if not self.writes_whole:
            self.system.makedirs(self._path(name).rpartition("/")[0], exist_ok=True)


def open_objects(
    address: str, shown: str, *, what: str, refusal: type[OptimizeError] = RequestError, then: str = ""
) -> Objects:
    """The objects below an address, none of which has to be there yet. Raises as `open_store` does."""
    with asking(shown, refusal=refusal, what=what, then=then):
        system, root = open_store(address, shown, refusal=refusal, what=what)
    if not root.strip("/"):
        raise refusal(f"{shown}: names no folder; add one")
    return Objects(system, root.rstrip("/"), shown, what, refusal, then)
