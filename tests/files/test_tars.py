"""Tars: the same bytes whoever packs them, and of what comes from elsewhere, plain files alone."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from optimize.files.tars import HEADER_BYTES, pack, unpack


def packed(files: dict[str, Path]) -> bytes:
    out = io.BytesIO()
    pack(files, out)
    return out.getvalue()


def read(content: bytes) -> dict[str, bytes]:
    found = {}
    for name, size, chunks in unpack(io.BytesIO(content)):
        found[name] = b"".join(chunks)
        assert len(found[name]) == size
    return found


def with_member(info: tarfile.TarInfo) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.addfile(info, io.BytesIO(bytes(info.size)))
    return out.getvalue()


def test_files_come_back_under_their_names_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"content")
    (tmp_path / "b").write_bytes(bytes(3 * 2**20))
    files = {"x/long" + "g" * 200: tmp_path / "b", "ü": tmp_path / "a"}

    found = read(packed(files))

    assert list(found.items()) == [(name, path.read_bytes()) for name, path in files.items()]


def test_nothing_says_who_packed_when(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"content")
    first = packed({"a": tmp_path / "a"})
    os.utime(tmp_path / "a", (0, 0))
    (tmp_path / "a").chmod(0o600)

    assert packed({"a": tmp_path / "a"}) == first


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE]
)
def test_what_is_no_plain_file_is_refused(kind: bytes) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.linkname = kind, "/etc/passwd"
    with pytest.raises(ValueError, match="has 'x', which is not a plain file"):
        read(with_member(info))


def test_a_name_without_end_is_refused() -> None:
    with pytest.raises(ValueError, match="has headers without end"):
        read(with_member(tarfile.TarInfo("x" * 2 * HEADER_BYTES)))


@pytest.mark.parametrize("content", [b"", b"no tar" * 1000])
def test_what_is_no_tar_is_said_to_be_none(content: bytes) -> None:
    with pytest.raises(tarfile.TarError):
        read(content)


def test_a_tar_that_ends_early_is_not_taken_for_whole(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(10_000))
    with pytest.raises(tarfile.TarError, match="unexpected end of data"):
        read(packed({"a": tmp_path / "a"})[:5000])
