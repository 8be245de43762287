"""Objects below an address: on a store where they appear whole, and on a disk, where files are seen to grow."""

from __future__ import annotations

import itertools
import time
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import fsspec
import pytest

from optimize.errors import RequestError, UnavailableError
from optimize.files.objects import PARTIAL, Objects, open_objects

NUMBERS = itertools.count()
WHEN = datetime(2026, 11, 28, 12, tzinfo=UTC)


@pytest.fixture(params=["memory", "file"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    """What is below a new address: nothing."""
    address = f"memory://objects/{next(NUMBERS)}" if request.param == "memory" else f"file://{tmp_path}/new/folder"
    return open_objects(address, "shown", what="the address", then="; so be it")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "content").write_bytes(b"content")
    return tmp_path / "content"


def test_a_new_address_has_nothing(objects: Objects) -> None:
    assert objects.listed() == {}
    assert objects.facts("x") is None
    assert not objects.get("x", Path("nowhere"))
    objects.remove(["x"])


def test_what_is_put_is_listed_and_read_back(objects: Objects, file: Path, tmp_path: Path) -> None:
    objects.put_whole(file, "a")
    objects.put(file, "below/b")
    objects.write("c", b"small")

    assert {name: facts["size"] for name, facts in objects.listed().items()} == {"a": 7, "below/b": 7, "c": 5}
    assert objects.facts("a")["size"] == 7
    assert objects.facts("below") is None
    assert objects.get("a", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"".join(objects.chunks("below/b")) == objects.content("a", 100)
    assert objects.content("c", 2) == b"sm"

    objects.remove(["a", "below/b"])
    assert list(objects.listed()) == ["c"]


def test_the_last_to_put_is_who_wins(objects: Objects, file: Path) -> None:
    objects.put_whole(file, "a")
    file.write_bytes(b"another")
    objects.put_whole(file, "a")
    assert objects.content("a", 100) == b"another"
    assert list(objects.listed()) == ["a"]


def test_beginnings_are_those_of_what_is_there(objects: Objects, file: Path) -> None:
    objects.put(file, "a")
    objects.write("empty", b"")
    assert objects.beginnings({"a": 7, "gone": 7, "empty": 0}, 3) == {"a": b"con"}
    assert objects.beginnings({"a": 7}, 100) == {"a": b"content"}
    assert objects.beginnings({}, 100) == {}


def test_a_beginning_that_cannot_be_read_is_no_end_of_the_list(objects: Objects, file: Path, monkeypatch) -> None:
    objects.put(file, "a")
    monkeypatch.setattr(objects.system, "cat_ranges", lambda *_: [PermissionError("no")])
    with pytest.raises(RequestError, match=r"shown: these credentials do not allow that; .*; so be it"):
        objects.beginnings({"a": 7}, 3)


def test_what_was_written_just_now_is_young(objects: Objects, file: Path) -> None:
    objects.put(file, "a")
    listed, asked = objects.listed()["a"], objects.facts("a")
    assert abs(objects.written(listed) - time.time()) < 60
    assert objects.written(asked) == pytest.approx(objects.written(listed))


@pytest.mark.parametrize(
    "facts",
    [
        {"LastModified": WHEN},  # S3
        {"last_modified": WHEN.astimezone(timezone(timedelta(hours=2))), "creation_time": None},  # Azure
        {"mtime": WHEN, "time": WHEN - timedelta(1)},  # SFTP
        {"mtime": WHEN.timestamp(), "created": 0.0},  # a disk
        {"updated": "2026-11-28T12:00:00.000Z", "mtime": None},  # Google
        {"created": WHEN},  # memory
    ],
)
def test_every_store_says_in_its_own_words_when_an_object_was_written(facts, objects: Objects) -> None:
    assert objects.written(facts) == WHEN.timestamp()


def test_a_store_that_does_not_say_it_is_refused(objects: Objects) -> None:
    with pytest.raises(UnavailableError, match="shown: does not say when its objects were written"):
        objects.written({"size": 3, "LastModified": ""})


def test_half_a_file_is_never_seen_under_its_name(tmp_path: Path, file: Path, monkeypatch) -> None:
    objects = open_objects(f"file://{tmp_path}/disk", "shown", what="the address")
    seen = list[set[str]]()
    put_file = objects.system.put_file

    def look(source: str, to: str) -> None:
        put_file(source, to)
        seen.append(set(objects.listed()))

    monkeypatch.setattr(objects.system, "put_file", look)
    objects.put_whole(file, "a")

    ((name,),) = seen
    assert name.startswith(PARTIAL)
    assert set(objects.listed()) == {"a"}


def test_an_address_without_a_folder_is_refused() -> None:
    with pytest.raises(RequestError, match="shown: names no folder; add one"):
        open_objects("memory://", "shown", what="the address")
    assert fsspec.filesystem("memory").exists("")
