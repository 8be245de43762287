"""The cache: an entry exists whole or not at all, whatever is killed, raced or tampered with."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from optimize import cache
from optimize.cache import keys
from optimize.errors import StageError

MATERIAL = {"stage": "export", "params": {"opset": 17}, "input": "abc", "head": "fill-mask", "seed": 0}

BUILDER = """
import json, pathlib, sys, time
from optimize import cache

root, pause = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])

def build(out):
    (out / "model.onnx").write_bytes(b"weights")
    (pause / f"{sys.argv[3]}.building").touch()
    while not (pause / "go").exists():
        time.sleep(0.01)
    return {"builder": sys.argv[3]}

entry = cache.fetch(root, {"input": "abc"}, "onnx", build)
print(json.dumps({"digest": entry.artifact.digest, "cached": entry.cached, "path": str(entry.artifact.path),
                  "builder": entry.facts["builder"]}))
"""


class Builder:
    """Builds the same small model each time, and counts how often."""

    def __init__(self):
        self.calls = 0

    def __call__(self, out):
        self.calls += 1
        (out / "model.onnx").write_bytes(b"weights")
        (out / "config.json").write_text("{}")
        return {"fused": 6}


@pytest.fixture
def build():
    return Builder()


@pytest.fixture
def root(tmp_path):
    return tmp_path / "cache"


def start(name, root, pause):
    """Start another process that builds an entry and waits inside for the file `go`."""
    pause.mkdir(exist_ok=True)
    arguments = [sys.executable, "-c", BUILDER, str(root), str(pause), name]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


def wait_for(path):
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path.name} never came"
        time.sleep(0.01)


def partials(root):
    return [path.name for path in root.iterdir() if path.name.startswith(".")]


def test_what_is_missing_is_built_and_noted(root, build):
    entry = cache.fetch(root, MATERIAL, "onnx", build)
    assert (entry.cached, entry.facts, build.calls) == (False, {"fused": 6}, 1)
    assert entry.artifact.path == root / entry.key / "artifact"
    assert (entry.artifact.path / "model.onnx").read_bytes() == b"weights"
    assert partials(root) == []


def test_what_is_there_is_not_built_again_and_is_the_same(root, build):
    first = cache.fetch(root, MATERIAL, "onnx", build)
    second = cache.fetch(root, dict(reversed(MATERIAL.items())), "onnx", build)
    assert (second.cached, build.calls) == (True, 1)
    assert (second.artifact, second.facts, second.key) == (first.artifact, first.facts, first.key)
    assert second.seconds == pytest.approx(first.seconds, abs=1e-3)


@pytest.mark.parametrize("part", MATERIAL)
def test_the_key_changes_with_each_part_of_the_material(part, root, build):
    entry = cache.fetch(root, MATERIAL, "onnx", build)
    other = cache.fetch(root, {**MATERIAL, part: "another"}, "onnx", build)
    assert other.key != entry.key
    assert (other.cached, build.calls) == (False, 2)


def test_the_key_changes_with_a_part_that_is_added(root, build):
    keys = {cache.fetch(root, {**MATERIAL, **more}, "onnx", build).key for more in ({}, {"versions": {"onnx": "1"}})}
    assert len(keys) == 2


def test_the_key_changes_with_the_code(root, build, monkeypatch):
    before = cache.fetch(root, MATERIAL, "onnx", build)
    monkeypatch.setattr(keys, "code_digest", lambda: "edited")
    assert cache.fetch(root, MATERIAL, "onnx", build).key != before.key


@pytest.mark.parametrize(
    ("edited", "counts"),
    [
        ("stages/export.py", True),
        ("heads/_metrics.py", True),
        ("checkpoint.py", True),
        ("a_new_folder/a_new_file.py", True),
        ("cli/commands.py", False),
        ("report/page.py", False),
        ("running.py", False),
    ],
)
def test_the_code_digest_covers_all_but_what_cannot_shape_an_artifact(edited, counts, tmp_path, monkeypatch):
    package = tmp_path / "optimize"
    (package / edited).parent.mkdir(parents=True)
    (package / edited).write_text("x = 1\n")
    monkeypatch.setattr(keys, "__file__", str(package / "cache" / "keys.py"))
    before = cache.code_digest.__wrapped__()
    (package / edited).write_text("x = 2\n")
    assert (cache.code_digest.__wrapped__() != before) == counts


def test_the_material_lies_readable_beside_the_entry(root, build):
    entry = cache.fetch(root, MATERIAL, "onnx", build)
    written = json.loads((root / entry.key / "material.json").read_text())
    assert written == {**MATERIAL, "code": cache.code_digest()}


def change_a_byte(folder):
    (folder / "artifact" / "model.onnx").write_bytes(b"weighty")


def delete_a_file(folder):
    (folder / "artifact" / "config.json").unlink()


def add_a_file(folder):
    (folder / "artifact" / "more.json").touch()


def break_the_record(folder):
    (folder / "entry.json").write_text('{"kind": "onnx", "dig')


def empty_the_record(folder):
    (folder / "entry.json").write_text("{}")


def make_the_record_a_list(folder):
    (folder / "entry.json").write_text("[]")


def lose_the_record(folder):
    (folder / "entry.json").unlink()


def garble_the_record(folder):
    (folder / "entry.json").write_bytes(b"\xff\xfe\x00")


DAMAGES = [
    change_a_byte,
    delete_a_file,
    add_a_file,
    break_the_record,
    empty_the_record,
    make_the_record_a_list,
    lose_the_record,
    garble_the_record,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_built_anew(damage, root, build):
    good = cache.fetch(root, MATERIAL, "onnx", build)
    damage(root / good.key)
    again = cache.fetch(root, MATERIAL, "onnx", build)
    assert (again.cached, build.calls, again.artifact) == (False, 2, good.artifact)
    assert cache.fetch(root, MATERIAL, "onnx", build).cached
    assert partials(root) == []


def test_an_exception_in_the_build_passes_through_and_leaves_nothing(root, build):
    def broken(out):
        build(out)
        raise ZeroDivisionError("in the stage")

    with pytest.raises(ZeroDivisionError, match="in the stage"):
        cache.fetch(root, MATERIAL, "onnx", broken)
    assert list(root.iterdir()) == []
    assert not cache.fetch(root, MATERIAL, "onnx", build).cached


def test_an_interrupt_in_the_build_leaves_nothing(root):
    def interrupted(out):
        (out / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.fetch(root, MATERIAL, "onnx", interrupted)
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_with_the_cache_and_leaves_nothing(code, root):
    def full(out):
        (out / "half").write_bytes(b"half")
        raise OSError(code, os.strerror(code))

    with pytest.raises(StageError) as refusal:
        cache.fetch(root, MATERIAL, "onnx", full)
    assert str(refusal.value) == f"{root}: the disk is full; free some space or name another folder with --cache"
    assert list(root.iterdir()) == []


def test_another_failure_of_the_disk_keeps_its_own_name(root):
    def refused(out):
        raise PermissionError(errno.EACCES, "Permission denied")

    with pytest.raises(PermissionError, match="Permission denied"):
        cache.fetch(root, MATERIAL, "onnx", refused)


def test_two_processes_that_build_the_same_both_get_the_one_valid_entry(root, tmp_path):
    pause = tmp_path / "pause"
    processes = [start(name, root, pause) for name in ("one", "two")]
    for name in ("one", "two"):
        wait_for(pause / f"{name}.building")
    (pause / "go").touch()
    one, two = (json.loads(process.communicate(timeout=60)[0]) for process in processes)
    assert [process.returncode for process in processes] == [0, 0]
    assert {one["cached"], two["cached"]} == {True, False}
    assert [one[key] for key in ("digest", "path", "builder")] == [two[key] for key in ("digest", "path", "builder")]
    assert partials(root) == []
    assert len(list(root.iterdir())) == 1


def test_a_killed_build_leaves_no_entry_and_its_remains_are_swept_by_the_next(root, tmp_path, build):
    process = start("killed", root, tmp_path / "pause")
    wait_for(tmp_path / "pause" / "killed.building")
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert len(partials(root)) == len(list(root.iterdir())) == 1
    entry = cache.fetch(root, MATERIAL, "onnx", build)
    assert [path.name for path in root.iterdir()] == [entry.key]


def test_the_work_of_a_live_process_is_not_swept(root, tmp_path, build):
    process = start("live", root, tmp_path / "pause")
    wait_for(tmp_path / "pause" / "live.building")
    cache.fetch(root, MATERIAL, "onnx", build)
    assert len(partials(root)) == 1
    (tmp_path / "pause" / "go").touch()
    theirs = json.loads(process.communicate(timeout=60)[0])
    assert (process.returncode, theirs["cached"], theirs["builder"]) == (0, False, "live")
    assert partials(root) == []


def test_whoever_loses_the_race_uses_the_winners(root, build):
    def slow(out):
        cache.fetch(root, MATERIAL, "onnx", build)
        (out / "model.onnx").write_bytes(b"the loser's")
        return {"fused": 0}

    entry = cache.fetch(root, MATERIAL, "onnx", slow)
    assert (entry.cached, entry.facts) == (True, {"fused": 6})
    assert (entry.artifact.path / "model.onnx").read_bytes() == b"weights"
    assert partials(root) == []


def test_a_winner_that_is_damaged_is_replaced(root, build):
    def slow(out):
        change_a_byte(root / cache.fetch(root, MATERIAL, "onnx", build).key)
        return build(out)

    entry = cache.fetch(root, MATERIAL, "onnx", slow)
    assert (entry.artifact.path / "model.onnx").read_bytes() == b"weights"
    assert cache.fetch(root, MATERIAL, "onnx", build).cached
    assert partials(root) == []


def test_an_entry_of_another_kind_is_not_taken(root, build):
    cache.fetch(root, MATERIAL, "onnx", build)
    assert not cache.fetch(root, MATERIAL, "torch", build).cached
    assert build.calls == 2


def test_scratch_is_found_again_after_a_failure_and_goes_with_the_work_done(root, build):
    scratch = cache.scratch_of(root, MATERIAL)

    def fails(out):
        scratch.mkdir()
        (scratch / "state").touch()
        raise StageError("a stage: broke; mend it")

    with pytest.raises(StageError):
        cache.fetch(root, MATERIAL, "onnx", fails)
    assert [path.name for path in cache.scratch_of(root, MATERIAL).iterdir()] == ["state"]
    entry = cache.fetch(root, MATERIAL, "onnx", build)
    assert scratch.name == f".scratch-{entry.key}"
    assert [path.name for path in root.iterdir()] == [entry.key]


def test_other_work_has_other_scratch():
    assert cache.scratch_of(Path(), MATERIAL) != cache.scratch_of(Path(), {**MATERIAL, "seed": 1})


def test_scratch_that_nobody_came_back_to_is_swept(root, build):
    old, young = (root / f".scratch-{name}" for name in ("old", "young"))
    for folder in (old, young):
        folder.mkdir(parents=True)
    os.utime(old, (0, time.time() - cache.SCRATCH_SECONDS - 1))
    cache.fetch(root, MATERIAL, "onnx", build)
    assert (old.exists(), young.exists()) == (False, True)
