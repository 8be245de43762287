"""One file, `.tar.zst`: the publication as a tar, packed with Zstandard, without a trace of who packed it when.

SHA256SUMS comes first, so that each file can be checked as it is unpacked. Read is what we write: plain files. Links,
devices, sparse files and headers without end are refused; Python's own filters would let links pass.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Generator, Iterator
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from optimize.artifact import CHUNK_BYTES, file_digest
from optimize.errors import RequestError, UnavailableError, brief, first_line
from optimize.files.assembling import assembled
from optimize.interfaces import Progress
from optimize.publishing.checksums import file_names
from optimize.publishing.destinations.interface import Sent, Terms
from optimize.refusals import check_place
from optimize.request import user_path

if TYPE_CHECKING:
    import zstandard

SUFFIX = ".tar.zst"
HEADER_BYTES = 2**17
"""What of a tar is read before a file's content begins: a header, and names that do not fit into it."""
WINDOW_BYTES = 2**27
"""Of memory that unpacking may take; what `zstd` asks for by itself, up to its level 19, is less."""
LEVEL = 10
"""Weights hardly shrink further."""
PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE)


class Archive:
    """The destination of paths that end in `.tar.zst`."""

    has = frozenset({"replace"})

    def check(self, place: str, terms: Terms) -> None:
        """Refuse a place that cannot be written to, or lacks its library."""
        _library(place)
        user_path(place, "the archive to publish to")
        if Path(place).is_dir():
            raise RequestError(f"{place}: is a folder; name a file")
        check_place(Path(place).resolve().parent, "the archive to publish to")

    def put(self, folder: Path, place: str, terms: Terms, progress: Progress) -> str:
        """Pack beside the place, and rename. The same publication gives the same bytes, but for its signature."""
        there = Path(place).absolute()
        with assembled(there.parent, "packed") as work:
            packed = work / there.name
            _pack(folder, packed, _library(place))
            if os.path.lexists(there) and not terms.replace:
                if there.is_file() and _same(there, packed):
                    return str(there)
                raise RequestError(f"{place}: has other content; name a new file, or add --replace")
            os.replace(packed, there)
        return str(there)

    def read(self, place: str, progress: Progress) -> Generator[Sent]:
        """The files of an archive, one after another as they lie in it."""
        library = _library(place)
        try:
            with Path(place).open("rb") as stream:
                limit = library.ZstdDecompressor(max_window_size=WINDOW_BYTES)
                metered = _Metered(limit.stream_reader(stream, read_across_frames=True), place)
                with tarfile.open(fileobj=metered, mode="r|") as tar:
                    yield from _members(tar, metered, place)
        except OSError as error:
            raise RequestError(f"{place}: cannot be read ({error.strerror}); name an archive that is there") from error
        except (tarfile.TarError, library.ZstdError, EOFError) as error:
            raise RequestError(
                f"{place}: cannot be unpacked ({brief(first_line(error))}); fetch it again, or publish its run again"
            ) from error


class _Metered(io.RawIOBase):
    """A stream of which no more is read than was allowed: a tar's headers are read into memory whole."""

    def __init__(self, stream: zstandard.ZstdDecompressionReader, place: str) -> None:
        self.stream, self.place, self.left = stream, place, HEADER_BYTES

    def read(self, size: int = -1, /) -> bytes:
        """Read as many bytes, or to the end."""
        content: bytes = self.stream.read(size)
        self.left -= len(content)
        if self.left < 0:
            raise RequestError(f"{self.place}: has headers without end; get it from elsewhere")
        return content


def _members(tar: tarfile.TarFile, metered: _Metered, place: str) -> Iterator[Sent]:
    while (member := tar.next()) is not None:
        is_plain = member.type in PLAIN and not member.issparse() and member.size >= 0
        stream = tar.extractfile(member) if is_plain else None
        if stream is None:
            raise RequestError(f"{place}: has '{brief(member.name)}', which is not a plain file; get it from elsewhere")
        metered.left = member.size + HEADER_BYTES
        yield Sent(member.name, member.size, iter(partial(stream.read, CHUNK_BYTES), b""))
        metered.left = HEADER_BYTES


def _library(place: str) -> ModuleType:
    if find_spec("zstandard") is None:
        raise UnavailableError(
            f"{place}: zstandard is not installed; pip install 'distilbert-optimize[publish]', or name a folder"
        )
    return import_module("zstandard")


def _pack(folder: Path, packed: Path, library: ModuleType) -> None:
    with (
        packed.open("xb") as out,
        library.ZstdCompressor(level=LEVEL).stream_writer(out) as stream,
        tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name in file_names(folder):
            member = tarfile.TarInfo(name)
            member.size, member.mode = (folder / name).stat().st_size, 0o644
            with (folder / name).open("rb") as content:
                tar.addfile(member, content)


def _same(one: Path, other: Path) -> bool:
    return one.stat().st_size == other.stat().st_size and file_digest(one) == file_digest(other)
