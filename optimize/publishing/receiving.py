"""A publication as it comes from elsewhere: every name, size and digest is checked while it is read.

Nothing is written under a name that leads elsewhere, nothing is read past the size that was stated, and what is more
than any publication has is refused before it is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from itertools import chain
from pathlib import Path

from optimize.errors import RequestError, brief
from optimize.interfaces import Progress
from optimize.publishing.checksums import ADVICE, CHECKSUMS, MOST_BYTES, UNLISTED, parse_checksums, require_safe
from optimize.publishing.destinations.interface import Sent

MOST_BYTES_IN_ALL = 2**34
"""Of a publication; a DistilBERT in FP32 and its INT8 form have 2**29 together."""


def open_publication(files: Iterator[Sent], where: str) -> tuple[dict[str, bytes], Iterator[Sent]]:
    """What a publication is known by (SHA256SUMS, and its signature if it has one), and the files after it.

    Raises RequestError where that is not what comes first.
    """
    first: dict[str, bytes] = {}
    for sent in files:
        if sent.name not in UNLISTED:
            files = chain([sent], files)
            break
        if sent.name in first:
            raise RequestError(f"{where}: has '{sent.name}' twice; {ADVICE}")
        if sent.size > MOST_BYTES:
            raise RequestError(f"{where}: its {sent.name} is larger than {MOST_BYTES // 1024} KiB; {ADVICE}")
        first[sent.name] = b"".join(_bounded(sent, where))
    if CHECKSUMS not in first:
        raise RequestError(f"{where}: does not begin with {CHECKSUMS}, so it is no publication, or not all of one; "
                           "publish its run there again")  # fmt: skip
    return first, files


def receive(
    first: Mapping[str, bytes], files: Iterator[Sent], *, where: str, progress: Progress, into: Path | None = None
) -> None:
    """Read all files of an opened publication, and write them `into` an empty folder, if one is given.

    Raises RequestError where they are not exactly what its checksums say.
    """
    stated = parse_checksums(first[CHECKSUMS], where)
    left, total = dict(stated), 0
    for sent in files:
        require_safe(sent.name, where)
        if sent.name not in left:
            again = "twice" if sent.name in stated else f"which its {CHECKSUMS} does not name"
            raise RequestError(f"{where}: has '{brief(sent.name)}', {again}; {ADVICE}")
        total += sent.size
        if total > MOST_BYTES_IN_ALL:
            raise RequestError(
                f"{where}: has more than {MOST_BYTES_IN_ALL // 2**30} GiB, as no publication has; get it from elsewhere"
            )
        if _digest(sent, where, into / sent.name if into else None) != left.pop(sent.name):
            raise RequestError(f"{where}: '{brief(sent.name)}' is not what its {CHECKSUMS} says; {ADVICE}")
        progress.step("read", len(stated) - len(left), len(stated))
    for name in sorted(left):
        raise RequestError(f"{where}: lacks '{brief(name)}'; {ADVICE}")
    if into:
        for name, content in first.items():
            (into / name).write_bytes(content)


def _digest(sent: Sent, where: str, copy: Path | None) -> str:
    """SHA-256 of a file as it comes; the same bytes are written to `copy`, if any."""
    total = hashlib.sha256()
    with ExitStack() as stack:
        out = None
        if copy:
            copy.parent.mkdir(parents=True, exist_ok=True)
            out = stack.enter_context(copy.open("xb"))
        for chunk in _bounded(sent, where):
            total.update(chunk)
            if out:
                out.write(chunk)
    return total.hexdigest()


def _bounded(sent: Sent, where: str) -> Iterator[bytes]:
    """The content, no longer and no shorter than was stated."""
    received = 0
    for chunk in sent.chunks:
        received += len(chunk)
        if received > sent.size:
            break
        yield chunk
    if received != sent.size:
        raise RequestError(f"{where}: '{brief(sent.name)}' does not have the {sent.size:,} bytes it should; {ADVICE}")
