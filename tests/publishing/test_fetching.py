"""Publications and runs as they are fetched: verified, wherever they are, and refused where anything is not right."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import zstandard
from publishing.conftest import contents
from report.conftest import make_manifest

from optimize import manifest
from optimize.errors import RequestError
from optimize.interfaces import Silence
from optimize.publishing.checksums import CHECKSUMS
from optimize.publishing.destinations import destination_of
from optimize.publishing.destinations.interface import Terms
from optimize.publishing.fetching import fetch


@pytest.fixture
def archive(publication: Path, tmp_path: Path) -> str:
    return destination_of("a.tar.zst").put(publication, str(tmp_path / "a.tar.zst"), Terms(), Silence())


def test_a_folder_is_returned_as_it_is(publication):
    assert fetch(str(publication)) == publication


def test_an_archive_is_unpacked_once(archive, publication):
    found = fetch(archive)
    before = found.stat().st_ino

    assert contents(found) == contents(publication)
    assert fetch(archive) == found
    assert found.stat().st_ino == before


def test_what_was_changed_in_the_cache_is_fetched_again(archive, publication):
    found = fetch(archive)
    (found / "model.onnx").write_bytes(b"another")

    assert contents(fetch(archive)) == contents(publication)


def test_the_same_publication_gives_the_same_archive(archive, publication, tmp_path):
    again = destination_of("b.tar.zst").put(publication, str(tmp_path / "b.tar.zst"), Terms(), Silence())

    assert Path(again).read_bytes() == Path(archive).read_bytes()


def test_a_run_is_returned_where_its_model_is_the_one_that_was_judged(tmp_path):
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "model" / "config.json").write_text("{}", encoding="utf-8")
    manifest.write(make_manifest(), tmp_path / "run")

    with pytest.raises(RequestError, match="is not what the manifest says"):
        fetch(str(tmp_path / "run"))


def test_any_other_folder_is_refused(tmp_path):
    (tmp_path / "other").mkdir()
    with pytest.raises(RequestError, match="other: is no run and no publication"):
        fetch(str(tmp_path / "other"))
    with pytest.raises(RequestError, match="nowhere: no such folder"):
        fetch(str(tmp_path / "nowhere"))


CHANGES = {
    "a changed file": (lambda folder: (folder / "model.onnx").write_bytes(b"other"), "'model.onnx' is not what its"),
    "a missing file": (lambda folder: (folder / "config.json").unlink(), "lacks 'config.json'"),
    "a file more": (lambda folder: (folder / "more.py").write_bytes(b""), "has 'more.py', which its SHA256SUMS does"),
    "a link": (lambda folder: (folder / "more").symlink_to("/etc/passwd"), "more: is a link"),
    "a pipe": (lambda folder: os.mkfifo(folder / "more"), "more: is a pipe"),
}


@pytest.mark.parametrize(("change", "says"), CHANGES.values(), ids=CHANGES)
def test_a_folder_that_was_changed_is_refused(change, says, publication):
    change(publication)
    with pytest.raises(RequestError, match=says):
        fetch(str(publication))


SUMS = {
    "a name that leaves": (b"../../model.onnx", "which is not a place below it"),
    "an absolute name": (b"/etc/passwd", "which is not a place below it"),
    "a drive": (b"C:x", "which not every system takes"),
    "a backslash": (b"..\\x", "which not every system takes"),
    "a name of control characters": (b"a\x1b[2Jb", "which not every system takes"),
    "its own name": (b"SHA256SUMS", "a line that means nothing"),
    "the same twice": (b"model.onnx", "a line that means nothing"),
    "a long name": (b"x" * 999, "which is not a place below it"),
}


@pytest.mark.parametrize(("name", "says"), SUMS.values(), ids=SUMS)
def test_checksums_that_name_what_no_publication_has_are_refused(name, says, publication):
    with (publication / CHECKSUMS).open("ab") as stream:
        stream.write(b"0" * 64 + b"  " + name + b"\n")
    with pytest.raises(RequestError, match=says):
        fetch(str(publication))


def pack(place: Path, *members: tuple[tarfile.TarInfo, bytes], tail: bytes = b"") -> str:
    """An archive of these members, whoever would make such a thing."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member, content in members:
            member.size = member.size or len(content)
            tar.addfile(member, io.BytesIO(content))
    packed = zstandard.ZstdCompressor().compress(stream.getvalue())
    (place / "bad.tar.zst").write_bytes(packed + tail)
    return str(place / "bad.tar.zst")


def member(name: str, kind: bytes = tarfile.REGTYPE, **facts: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    for fact, value in facts.items():
        setattr(info, fact, value)
    return info


HOSTILE = {
    "no checksums": ([(member("model.onnx"), b"x")], "does not begin with SHA256SUMS"),
    "a file above": ([(member("../x"), b"x")], "which is not a place below it"),
    "an absolute file": ([(member("/tmp/x"), b"x")], "which is not a place below it"),
    "a symbolic link": ([(member("config.json", tarfile.SYMTYPE, linkname="/etc/passwd"), b"")], "not a plain file"),
    "a hard link": ([(member("config.json", tarfile.LNKTYPE, linkname="model.onnx"), b"")], "not a plain file"),
    "a device": ([(member("config.json", tarfile.CHRTYPE, devmajor=1), b"")], "not a plain file"),
    "a folder": ([(member("config.json", tarfile.DIRTYPE), b"")], "not a plain file"),
    "a file more": ([(member("more"), b"x")], "has 'more', which its SHA256SUMS does not name"),
    "a file twice": ([(member("config.json"), b"{}"), (member("config.json"), b"{}")], "has 'config.json', twice"),
    "another content": ([(member("config.json"), b"[]")], "'config.json' is not what its SHA256SUMS says"),
    "too few": ([(member("config.json"), b"{}")], "lacks 'checkpoint/config.json'"),
    "headers without end": (
        [(member("config.json", pax_headers={"comment": "x" * 2**20}), b"{}")],
        "has headers without end",
    ),
}


@pytest.mark.parametrize(("members", "says"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_archive_is_refused_and_nothing_of_it_stays(members, says, publication, tmp_path, cache):
    sums = (publication / CHECKSUMS).read_bytes()
    first = [] if "begin with" in says else [(member(CHECKSUMS), sums)]
    bad = pack(tmp_path, *first, *members)

    with pytest.raises(RequestError, match=says):
        fetch(bad)
    assert contents(cache) == {}


def test_a_bomb_is_not_unpacked(publication, tmp_path, cache):
    """A member that claims more than any publication has is refused before it is read; one that lies is cut off."""
    sums = (publication / CHECKSUMS).read_bytes()
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        tar.addfile(member(CHECKSUMS, size=len(sums)), io.BytesIO(sums))
    head = stream.getvalue()[: 512 + -(-len(sums) // 512) * 512]
    large = member("model.onnx", size=2**40).tobuf(tarfile.GNU_FORMAT)
    (tmp_path / "bad.tar.zst").write_bytes(zstandard.ZstdCompressor().compress(head + large + bytes(2**20)))

    with pytest.raises(RequestError, match="has more than 16 GiB"):
        fetch(str(tmp_path / "bad.tar.zst"))
    assert contents(cache) == {}


@pytest.mark.parametrize("content", [b"", b"not packed at all", None])
def test_what_is_no_archive_is_refused(content, archive, tmp_path):
    whole = Path(archive).read_bytes()
    (tmp_path / "bad.tar.zst").write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(RequestError, match=r"bad\.tar\.zst: "):
        fetch(str(tmp_path / "bad.tar.zst"))


def test_an_archive_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(RequestError, match=r"nowhere\.tar\.zst: cannot be read"):
        fetch(str(tmp_path / "nowhere.tar.zst"))


def test_fetching_needs_nothing_that_pages_are_made_with():
    code = "import sys, optimize.publishing.fetching; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"altair", "markupsafe", "jinja2", "matplotlib", "torch"} & set(done.stdout.split())
