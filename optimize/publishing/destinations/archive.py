"""One file, `.tar.zst`: the publication as a tar, packed with Zstandard, without a trace of who packed it when.

SHA256SUMS comes first, so that each file can be checked as it is unpacked. Plain files alone are read, see
`optimize.files.tars`.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Generator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from optimize.artifact import file_digest
from optimize.errors import RequestError, UnavailableError, brief, first_line
from optimize.files.assembling import assembled
from optimize.files.tars import pack, unpack
from optimize.interfaces import Progress
from optimize.publishing.checksums import file_names
from optimize.publishing.destinations.interface import Sent, Terms
from optimize.refusals import check_place
from optimize.request import user_path

SUFFIX = ".tar.zst"
WINDOW_BYTES = 2**27
"""Of memory that unpacking may take; what `zstd` asks for by itself, up to its level 19, is less."""
LEVEL = 10
"""Weights hardly shrink further."""


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
                for member in unpack(limit.stream_reader(stream, read_across_frames=True)):
                    yield Sent(*member)
        except OSError as error:
            raise RequestError(f"{place}: cannot be read ({error.strerror}); name an archive that is there") from error
        except ValueError as error:
            raise RequestError(f"{place}: {error}; get it from elsewhere") from error
        except (tarfile.TarError, library.ZstdError, EOFError) as error:
            raise RequestError(
                f"{place}: cannot be unpacked ({brief(first_line(error))}); fetch it again, or publish its run again"
            ) from error


def _library(place: str) -> ModuleType:
    if find_spec("zstandard") is None:
        raise UnavailableError(
            f"{place}: zstandard is not installed; pip install 'distilbert-optimize[publish]', or name a folder"
        )
    return import_module("zstandard")


def _pack(folder: Path, packed: Path, library: ModuleType) -> None:
    files = {name: folder / name for name in file_names(folder)}
    with packed.open("xb") as out, library.ZstdCompressor(level=LEVEL).stream_writer(out) as stream:
        pack(files, stream)


def _same(one: Path, other: Path) -> bool:
    return one.stat().st_size == other.stat().st_size and file_digest(one) == file_digest(other)
