"""Tars of plain files: the same bytes whoever packs them when, and read so that nothing in them can do harm.

Read is what we write. Links, devices, sparse files and headers without end are refused; Python's own filters would let
links pass.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

from optimize.errors import brief
from optimize.files.copies import CHUNK_BYTES

HEADER_BYTES = 2**17
"""What of a tar is read before a file's content begins: a header, and names that do not fit into it."""
PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE)


class Member(NamedTuple):
    """A file of a tar: its name and its size in bytes as they are stated there, and its content, once."""

    name: str
    size: int
    chunks: Iterator[bytes]


def pack(files: Mapping[str, Path], out: BinaryIO) -> None:
    """Write files under these names and in this order, without a trace of who packed them when."""
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for name, path in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = path.stat().st_size, 0o644
            with path.open("rb") as content:
                tar.addfile(member, content)


def unpack(stream: BinaryIO) -> Iterator[Member]:
    """The files of a tar as they lie in it; each is to be read before the next is asked for.

    Raises ValueError for what no tar of ours has, in words that follow its name, and tarfile.TarError for what is no
    tar, or not all of one.
    """
    metered = _Metered(stream)
    with tarfile.open(fileobj=metered, mode="r|") as tar:
        while (member := tar.next()) is not None:
            is_plain = member.type in PLAIN and not member.issparse() and member.size >= 0
            content = tar.extractfile(member) if is_plain else None
            if content is None:
                raise ValueError(f"has '{brief(member.name)}', which is not a plain file")
            metered.left = member.size + HEADER_BYTES
            yield Member(member.name, member.size, iter(partial(content.read, CHUNK_BYTES), b""))
            metered.left = HEADER_BYTES


class _Metered(io.RawIOBase):
    """A stream of which no more is read than was allowed: a tar's headers are read into memory whole."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream, self.left = stream, HEADER_BYTES

    def read(self, size: int = -1, /) -> bytes:
        """Read as many bytes, or to the end."""
        content = self.stream.read(size)
        self.left -= len(content)
        if self.left < 0:
            raise ValueError("has headers without end")
        return content
