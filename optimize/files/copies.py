"""Files that belong to others, who may change them while they are read: digested, and copied while they are digested.

What is kept under a digest must come from the very bytes that were digested. A file's size and time of change do not
tell: tools set them. So what is read more than once, by libraries that take paths, is copied first; the copy has to
have the digests that were asked for, and only the copy is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from optimize.errors import RequestError
from optimize.files.leftovers import owned_partial

CHUNK_BYTES = 2**20
Files = Mapping[str, Path]
"""What files are called in a copy, and where they lie."""


def files_below(path: Path, name: str) -> Files:
    """All files of a folder under their places in it; a file alone as `name`, with its own suffix."""
    if not path.is_dir():
        return {f"{name}{path.suffix}": path}
    return {file.relative_to(path).as_posix(): file for file in sorted(path.rglob("*")) if file.is_file()}


def digests_of(files: Files) -> dict[str, str]:
    """SHA-256 of each file, in hex; raises RequestError for what cannot be read."""
    return {name: _digest(path, None) for name, path in files.items()}


@contextmanager
def private_copy(files: Files, digests: Mapping[str, str], root: Path) -> Iterator[Path]:
    """A folder below `root` with copies of files that have these digests and that nobody changes; it goes at the end.

    Raises RequestError where a file has become another, and OSError where `root` has no room.
    """
    with owned_partial(root, "copy") as folder:
        for name, path in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            if _digest(path, folder / name) != digests[name]:
                raise RequestError(f"{path}: changed while it was read; run again once nothing writes to it")
        yield folder


def _digest(path: Path, copy: Path | None) -> str:
    """SHA-256 of a file as it is read; the same bytes are written to `copy`, if any."""
    total = hashlib.sha256()
    with ExitStack() as stack:
        out = stack.enter_context(copy.open("xb")) if copy else None
        for chunk in _chunks(path):
            total.update(chunk)
            if out:
                out.write(chunk)
    return total.hexdigest()


def _chunks(path: Path) -> Iterator[bytes]:
    """A file's content; raises RequestError for what cannot be read, or never ends."""
    if not path.is_file():
        raise RequestError(f"{path}: is not a file; mend it or copy it again")
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(CHUNK_BYTES):
                yield chunk
    except OSError as error:
        raise RequestError(f"{path}: cannot be read ({error.strerror}); mend it or copy it again") from error
