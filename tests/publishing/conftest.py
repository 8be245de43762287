"""A small publication, and a cache of its own for what is fetched."""

from __future__ import annotations

from pathlib import Path

import pytest

from optimize.publishing.checksums import write_checksums

FILES = {"model.onnx": b"graph" * 9, "config.json": b"{}", "checkpoint/config.json": b"{1}"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where what is fetched goes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def publication(tmp_path: Path) -> Path:
    """A folder of a few files and their checksums; it may be changed."""
    return lay_out(tmp_path / "publication", FILES)


def lay_out(folder: Path, files: dict[str, bytes]) -> Path:
    """A publication of these files."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    write_checksums(folder)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
