"""`optimize cache`: nothing that is sound or in the making is lost."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from optimize import cache
from optimize.cli import keeping
from optimize.errors import RequestError
from optimize.files import leftovers

DAY = 24 * 3600


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A cache of three entries, each last used a day before the one before it."""
    for days, (stage, size) in enumerate([("export", 300), ("quantize_static", 200), ("fuse", 100)]):
        material = {"stage": stage, "head": "fill-mask"}
        entry = cache.fetch(tmp_path, material, "onnx", lambda out, size=size: fill(out, size))
        used = time.time() - days * DAY - 60
        os.utime(tmp_path / entry.key, (used, used))
    return tmp_path


def fill(out: Path, size: int) -> dict[str, int]:
    (out / "model.onnx").write_bytes(bytes(size))
    return {}


def stages_of(root: Path) -> list[str]:
    return [each.stage for each in keeping.list_entries(root)]


def test_entries_are_listed_with_the_last_used_first(root, optimize, capsys):
    assert optimize("cache", "ls", "--cache", str(root), "--json") == 0

    entries = json.loads(capsys.readouterr().out)["entries"]
    assert [each["stage"] for each in entries] == ["export", "quantize_static", "fuse"]
    assert [each["head"] for each in entries] == ["fill-mask"] * 3
    assert [round(each["age_seconds"] / DAY) for each in entries] == [0, 1, 2]
    assert all(each["size_bytes"] > size for each, size in zip(entries, (300, 200, 100), strict=True))


def test_the_table_of_entries_says_stage_size_and_age(root, optimize, capsys):
    assert optimize("cache", "ls", "--cache", str(root)) == 0

    out = capsys.readouterr().out
    assert "quantize_static" in out
    assert "2 days ago" in out
    assert "3 entries" in out


def test_a_cache_that_is_not_there_is_empty(tmp_path, optimize, capsys):
    assert optimize("cache", "ls", "--cache", str(tmp_path / "none")) == 0
    assert "0 entries" in capsys.readouterr().out


def test_what_is_used_again_is_young_again(root):
    cache.fetch(root, {"stage": "fuse", "head": "fill-mask"}, "onnx", lambda _: pytest.fail("is in the cache"))

    assert stages_of(root)[0] == "fuse"


def test_without_limits_only_leftovers_go(root, optimize, capsys):
    dead = root / f"{leftovers.PREFIX}x"
    dead.mkdir()
    (dead / leftovers.OWNER).write_text(leftovers._kernel(), encoding="utf-8")
    thrown_away = root / f"{cache.DISCARDED}x"
    thrown_away.mkdir()

    with leftovers.owned_partial(root, "work") as alive:
        assert optimize("cache", "gc", "--cache", str(root)) == 0
        assert [folder.exists() for folder in (dead, thrown_away, alive)] == [False, False, True]

    assert len(stages_of(root)) == 3
    assert "removed: 0 entries" in capsys.readouterr().out


def test_what_was_not_used_for_so_long_goes(root, optimize):
    assert optimize("cache", "gc", "--older-than", "1.5", "--cache", str(root), "-q") == 0
    assert stages_of(root) == ["export", "quantize_static"]


def test_what_was_used_last_is_kept_up_to_a_size(root, optimize, capsys):
    size = sum(each.size_bytes for each in keeping.list_entries(root)[:2])

    assert optimize("cache", "gc", "--keep", f"{size}B", "--cache", str(root), "--json") == 0

    assert stages_of(root) == ["export", "quantize_static"]
    assert [each["stage"] for each in json.loads(capsys.readouterr().out)["removed"]] == ["fuse"]


def test_nothing_older_is_kept_than_what_no_longer_fits(root):
    entries = keeping.list_entries(root)

    old = keeping.choose_old(entries, keep_bytes=entries[0].size_bytes + 1, older_than_days=None)

    assert [each.stage for each in old] == ["quantize_static", "fuse"]


@pytest.mark.parametrize(("text", "size"), [("2GB", 2 * 10**9), ("1.5 mb", 1_500_000), ("7", 7), ("0", 0)])
def test_a_size_is_read(text, size):
    assert keeping.read_size(text, "--keep") == size


@pytest.mark.parametrize("text", ["big", "-1GB", "2 XB", ""])
def test_what_is_not_a_size_is_refused(text):
    with pytest.raises(RequestError, match=r"--keep: .* is not a size"):
        keeping.read_size(text, "--keep")


def test_a_sound_cache_verifies(root, optimize, capsys):
    assert optimize("cache", "verify", "--cache", str(root)) == 0
    assert "damaged: 0 entries" in capsys.readouterr().out
    assert len(stages_of(root)) == 3


@pytest.mark.parametrize("damage", ["model", "record"])
def test_a_damaged_entry_is_removed_and_the_exit_code_is_3(damage, root, optimize, capsys):
    folder = keeping.list_entries(root)[1].folder
    file = folder / ("artifact/model.onnx" if damage == "model" else "entry.json")
    file.write_bytes(b"other")

    assert optimize("cache", "verify", "--cache", str(root), "--json") == 3

    assert [each["stage"] for each in json.loads(capsys.readouterr().out)["damaged"]] == ["quantize_static"]
    assert stages_of(root) == ["export", "fuse"]


def test_an_entry_without_its_material_is_listed_as_damaged(root):
    (keeping.list_entries(root)[0].folder / "material.json").write_text("[]", encoding="utf-8")

    assert stages_of(root)[0] == "damaged"
