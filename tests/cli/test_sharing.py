"""`optimize cache` with an address: the store is listed, cleared and verified, and this machine's copy with it."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import fsspec
import pytest

from optimize import cache
from optimize.cache.shared import reach
from optimize.cli import keeping, sharing
from optimize.files.leftovers import ABANDONED_SECONDS

DAY = 24 * 3600
NUMBERS = itertools.count()
SIZES = {"export": 30_000, "quantize_static": 20_000, "fuse": 10_000}


@pytest.fixture(params=["memory", "file"])
def address(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store with three entries of another machine, each written a day before the one before it."""
    place = f"memory://listed/{next(NUMBERS)}" if request.param == "memory" else f"file://{tmp_path}/store"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    cache.require_reachable(place)
    root = cache.open_place(place)
    for days, stage in enumerate(SIZES):
        age(place, build(root, stage), days * DAY + 60)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "here"))
    return place


def build(root: Path, stage: str) -> str:
    def fill(out: Path) -> dict[str, int]:
        (out / "model.onnx").write_bytes(bytes(SIZES[stage]))
        return {}

    return cache.fetch(root, {"stage": stage, "head": "fill-mask"}, "onnx", fill).key


def age(address: str, key: str, seconds: float) -> None:
    """Have an object been written so long ago."""
    system, root = fsspec.core.url_to_fs(address)
    path, when = f"{root}/{key}.tar", time.time() - seconds
    if address.startswith("file:"):
        os.utime(path, (when, when))
    else:
        system.store[path].created = datetime.fromtimestamp(when, UTC)


def use(address: str, stage: str) -> Path:
    """Take an entry of the store into this machine's copy; its folder."""
    root = cache.open_place(address)
    return root / build(root, stage)


def stored(address: str) -> list[str]:
    """The stages of the entries in a store, the last written first."""
    shared = reach(address)
    return [each.stage for each in sharing.named(shared, sharing.list_entries(shared, Path()))]


@pytest.fixture
def asks(optimize, capsys) -> Callable[..., tuple[int, dict[str, list[dict[str, object]]]]]:
    """The exit code of `optimize cache` and its document."""

    def ask(*words: str) -> tuple[int, dict[str, list[dict[str, object]]]]:
        code = optimize("cache", *words, "--json")
        return code, json.loads(capsys.readouterr().out)

    return ask


def names(entries: list[dict[str, object]]) -> list[object]:
    return [each["stage"] for each in entries]


def test_what_others_wrote_is_listed_by_name_size_and_age(address, asks):
    code, found = asks("ls", "--cache", address)

    assert (code, found["cache"]) == (0, address)
    assert names(found["entries"]) == list(SIZES)
    assert [each["head"] for each in found["entries"]] == ["fill-mask"] * 3
    assert [round(each["age_seconds"] / DAY) for each in found["entries"]] == [0, 1, 2]
    assert all(each["size_bytes"] > size for each, size in zip(found["entries"], SIZES.values(), strict=True))


def test_the_table_says_that_age_is_counted_from_writing(address, optimize, capsys):
    assert optimize("cache", "ls", "--cache", f"read+{address}") == 0
    out = capsys.readouterr().out
    assert "written" in out
    assert "2 days ago" in out
    assert "3 entries" in out


def test_a_store_that_has_nothing_is_empty(asks):
    assert asks("ls", "--cache", "memory://nothing/there") == (0, {"cache": "memory://nothing/there", "entries": []})


def test_names_are_read_off_the_beginning_of_each(address, monkeypatch):
    shared = reach(address)
    entries = sharing.list_entries(shared, Path())
    asked = list[tuple[list[str], list[int], list[int]]]()
    ranges = shared.objects.system.cat_ranges
    monkeypatch.setattr(shared.objects.system, "cat_ranges", lambda *words: (asked.append(words), ranges(*words))[1])

    assert [each.stage for each in sharing.named(shared, entries)] == list(SIZES)

    ((_, starts, ends),) = asked
    assert (starts, ends) == ([0] * 3, [min(each.size_bytes, sharing.MATERIAL_BYTES) for each in entries])


@pytest.mark.parametrize("content", [b"", b"no tar", bytes(10_240)], ids=["nothing", "no tar", "zeros"])
def test_what_is_no_entry_of_ours_is_listed_as_damaged(content, address, asks):
    system, root = fsspec.core.url_to_fs(address)
    system.pipe_file(f"{root}/{'0' * 64}.tar", content)
    system.pipe_file(f"{root}/notes.tar", content)

    _, found = asks("ls", "--cache", address)

    assert names(found["entries"]) == ["damaged", *SIZES]


def test_what_was_written_so_long_ago_goes(address, asks):
    code, found = asks("gc", "--older-than", "1.5", "--cache", address)

    assert (code, names(found["removed"]), found["removed_here"]) == (0, ["fuse"], [])
    assert stored(address) == ["export", "quantize_static"]


def test_the_youngest_are_kept_up_to_a_size(address, asks):
    _, found = asks("ls", "--cache", address)
    size = sum(each["size_bytes"] for each in found["entries"][:2])

    _, found = asks("gc", "--keep", f"{size}B", "--cache", address)

    assert names(found["removed"]) == ["fuse"]
    assert stored(address) == ["export", "quantize_static"]


def test_the_copy_is_cleared_by_its_own_use(address, asks):
    for stage, days in (("export", 3), ("fuse", 0)):
        folder = use(address, stage)
        used = time.time() - days * DAY - 60
        os.utime(folder, (used, used))

    _, found = asks("gc", "--older-than", "1.5", "--cache", address)

    assert (names(found["removed"]), names(found["removed_here"])) == (["fuse"], ["export"])
    assert [each.stage for each in keeping.list_entries(cache.place_of(address))] == ["fuse"]


def test_without_limits_only_what_killed_processes_left_goes(address, optimize, capsys):
    system, root = fsspec.core.url_to_fs(address)
    for name, old in (("dead", True), ("young", False)):
        system.pipe_file(f"{root}/.partial-{name}.tar", b"half")
        age(address, f".partial-{name}", ABANDONED_SECONDS + 60 if old else 0)

    assert optimize("cache", "gc", "--cache", address) == 0

    assert "removed: 0 entries, 0.0 MB\nremoved here: 0 entries, 0.0 MB" in capsys.readouterr().out
    assert [path.rpartition("/")[2] for path in system.find(root) if ".partial-" in path] == [".partial-young.tar"]
    assert len(stored(address)) == 3
    assert system.exists(f"{root}/README.txt")


def test_a_sound_store_verifies(address, asks):
    assert asks("verify", "--cache", address) == (0, {"damaged": [], "damaged_here": []})
    assert len(stored(address)) == 3


def test_what_is_damaged_there_is_removed_and_the_exit_code_is_3(address, asks):
    system, root = fsspec.core.url_to_fs(address)
    kept = use(address, "quantize_static")
    path = f"{root}/{kept.name}.tar"
    content = system.cat_file(path)
    system.pipe_file(path, content[:5000] + b"\1" + content[5001:])

    code, found = asks("verify", "--cache", address)

    assert (code, names(found["damaged"]), found["damaged_here"]) == (3, ["quantize_static"], [])
    assert sorted(stored(address)) == ["export", "fuse"]
    assert kept.is_dir()


def test_what_is_damaged_here_is_removed_here(address, asks):
    kept = use(address, "fuse")
    (kept / "artifact" / "model.onnx").write_bytes(b"other")

    code, found = asks("verify", "--cache", address)

    assert (code, found["damaged"], names(found["damaged_here"])) == (3, [], ["fuse"])
    assert not kept.exists()
    assert len(stored(address)) == 3


@pytest.mark.parametrize("command", ["gc", "verify"])
def test_what_is_only_read_is_not_cleared(command, address, optimize, capsys):
    assert optimize("cache", command, "--cache", f"read+{address}") == 2
    assert f"--cache: read+{address}: is only read; leave 'read+' out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("ls", "--cache", ""), 2, "--cache: is empty; name a path, or leave it out"),
        (("ls", "--cache", "nosuch://bucket/x"), 2, "nosuch://bucket/x: is no address of a kind that is known"),
        (("gc", "--cache", "s3://me:word@bucket/x"), 2, "--cache: s3://bucket/x: holds a password or a query"),
        (("verify", "--cache", "sftp://host/x"), 3, "sftp://host/x: needs paramiko, which is not installed"),
    ],
)
def test_caches_that_cannot_be_are_refused_in_a_line(words, code, says, optimize, capsys):
    assert optimize("cache", *words) == code
    assert says in capsys.readouterr().err
