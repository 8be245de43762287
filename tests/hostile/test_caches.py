"""Caches that somebody changed, and files that change under a run: nothing is believed that is not what was sealed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hostile.cases import HEAD, Change

import optimize
from optimize import cache
from optimize.cli import keeping
from optimize.errors import RequestError, StageError
from optimize.files import copies
from optimize.interfaces import Facts
from optimize.source import acquire
from optimize.source.acquire import acquire_checkpoint
from optimize.source.finding import inspect_checkpoint

MATERIAL = {"stage": "export", "head": "fill-mask", "seed": 0}
DEEP = "[" * 100_000


class Told:
    """Progress that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def step(self, name: str, done: int, total: int) -> None:
        """Nothing is asked of it here."""

    def say(self, line: str) -> None:
        """Keep a line."""
        self.lines.append(line)


@pytest.fixture
def told() -> Told:
    return Told()


def build(out: Path) -> Facts:
    (out / "model.onnx").write_bytes(b"weights")
    (out / "more").mkdir()
    (out / "more" / "config.json").write_text("{}", encoding="utf-8")
    return {"fused": 6}


def into(name: str, content: str | bytes) -> Change:
    """Write another content over a file of the entry."""
    return lambda entry: (entry / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def swap(name: str, make: Callable[[Path], object]) -> Change:
    """Put something else in a file's or folder's place."""

    def change(entry: Path) -> None:
        path = entry / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
        make(path)

    return change


def edit(**values: object) -> Change:
    """Change the record as a person would, its form kept."""

    def change(entry: Path) -> None:
        record = json.loads((entry / "entry.json").read_text(encoding="utf-8"))
        (entry / "entry.json").write_text(json.dumps(record | values, indent=2) + "\n", encoding="utf-8")

    return change


def same_time(change: Change, name: str) -> Change:
    """A change that the file's time does not tell."""

    def act(entry: Path) -> None:
        before = (entry / name).stat()
        change(entry)
        os.utime(entry / name, ns=(before.st_atime_ns, before.st_mtime_ns))

    return act


def link(name: str) -> Change:
    """A link in the place of the very same content, which moves elsewhere."""

    def change(entry: Path) -> None:
        elsewhere = entry.parent / "elsewhere"
        (entry / name).rename(elsewhere)
        (entry / name).symlink_to(elsewhere)

    return change


def nest(entry: Path) -> None:
    """A record without a bottom, and its right digest beside it."""
    (entry / "entry.json").write_text(DEEP, encoding="utf-8")
    (entry / "entry.sha256").write_text(hashlib.sha256(DEEP.encode()).hexdigest(), encoding="utf-8")


def link_the_entry(entry: Path) -> None:
    entry.rename(entry.parent / "moved")
    entry.symlink_to(entry.parent / "moved")


def replace_by_a_file(entry: Path) -> None:
    shutil.rmtree(entry)
    entry.write_bytes(b"")


def empty(entry: Path) -> None:
    shutil.rmtree(entry)
    entry.mkdir()


def take_another(entry: Path) -> None:
    """Put another sound entry in this one's place."""
    other = cache.fetch(entry.parent, {**MATERIAL, "seed": 1}, "onnx", build)
    shutil.rmtree(entry)
    (entry.parent / other.key).rename(entry)


DAMAGES: dict[str, Change] = {
    "a byte of the model": into("artifact/model.onnx", b"weighty"),
    "a byte at the same time": same_time(into("artifact/model.onnx", b"weighty"), "artifact/model.onnx"),
    "an emptied model": into("artifact/model.onnx", b""),
    "a longer model": into("artifact/model.onnx", b"weights and more"),
    "a file more": into("artifact/extra.json", "{}"),
    "a lost model": swap("artifact/model.onnx", lambda path: None),
    "a lost folder": swap("artifact/more", lambda path: None),
    "a lost artifact": swap("artifact", lambda path: None),
    "a folder for a model": swap("artifact/model.onnx", Path.mkdir),
    "a pipe for a model": swap("artifact/model.onnx", os.mkfifo),
    "a link for a model": link("artifact/model.onnx"),
    "a dangling link": swap("artifact/model.onnx", lambda path: path.symlink_to("nowhere")),
    "an endless file": swap("artifact/model.onnx", lambda path: path.symlink_to("/dev/zero")),
    "a link for a folder": link("artifact/more"),
    "a link beside the model": lambda entry: (entry / "artifact" / "extra").symlink_to("/etc"),
    "a link to itself": lambda entry: (entry / "artifact" / "loop").symlink_to("."),
    "a link for the artifact": link("artifact"),
    "a file for the artifact": swap("artifact", Path.touch),
    "edited facts": edit(facts={"fused": 7}),
    "more facts": edit(facts={"fused": 6, "verified": True}),
    "no facts": edit(facts={}),
    "facts that are a list": edit(facts=[]),
    "edited seconds": edit(seconds=1e9),
    "seconds that are none": edit(seconds=None),
    "another kind": edit(kind="torch"),
    "a kind that is none": edit(kind=["onnx"]),
    "another digest": edit(digest="0" * 64),
    "a digest that is none": edit(digest=None),
    "a field more": edit(more=1),
    "an empty record": into("entry.json", ""),
    "half a record": into("entry.json", '{"kind": "onnx", "dig'),
    "a record of nothing": into("entry.json", "null"),
    "a record that is a list": into("entry.json", "[]"),
    "a record that is not UTF-8": into("entry.json", b"\xff\xfe\x00"),
    "a deep record": into("entry.json", DEEP),
    "a lost record": swap("entry.json", lambda path: None),
    "a folder for a record": swap("entry.json", Path.mkdir),
    "a pipe for a record": swap("entry.json", os.mkfifo),
    "an endless record": swap("entry.json", lambda path: path.symlink_to("/dev/zero")),
    "a deep record and its digest": nest,
    "a linked record": link("entry.json"),
    "an edited digest of the record": into("entry.sha256", "0" * 64),
    "a digest of the record that is not UTF-8": into("entry.sha256", b"\xff"),
    "a lost digest of the record": swap("entry.sha256", lambda path: None),
    "a folder for the record's digest": swap("entry.sha256", Path.mkdir),
    "edited material": into("material.json", json.dumps({**MATERIAL, "stage": "fuse"})),
    "deep material": into("material.json", DEEP),
    "empty material": into("material.json", ""),
    "material that is not UTF-8": into("material.json", b"\xff\xfe"),
    "lost material": swap("material.json", lambda path: None),
    "a folder for the material": swap("material.json", Path.mkdir),
    "a pipe for the material": swap("material.json", os.mkfifo),
    "another entry": take_another,
    "a linked entry": link_the_entry,
    "a file for the entry": replace_by_a_file,
    "an empty entry": empty,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_what_is_not_as_it_was_sealed_is_built_anew(tmp_path: Path, told: Told, damage: Change) -> None:
    good = cache.fetch(tmp_path, MATERIAL, "onnx", build)
    damage(tmp_path / good.key)

    again = cache.fetch(tmp_path, MATERIAL, "onnx", build, progress=told)

    assert told.lines == [f"cache: entry {good.key[:12]} is damaged; it is built again"]
    assert (again.cached, again.artifact, again.facts) == (False, good.artifact, good.facts)
    assert cache.fetch(tmp_path, MATERIAL, "onnx", build, progress=told).cached
    assert len(told.lines) == 1
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_verify_sees_what_is_not_as_it_was_sealed(tmp_path: Path, told: Told, damage: Change) -> None:
    good = cache.fetch(tmp_path, MATERIAL, "onnx", build)
    sound = cache.fetch(tmp_path, {**MATERIAL, "seed": 2}, "onnx", build)
    damage(tmp_path / good.key)

    damaged = keeping.verify(keeping.list_entries(tmp_path), told)

    assert [each.key for each in damaged] == [good.key]
    assert not os.path.lexists(tmp_path / good.key)
    assert [each.key for each in keeping.list_entries(tmp_path)] == [sound.key]


def test_an_entry_that_may_not_be_read_is_built_anew(tmp_path: Path, told: Told, monkeypatch) -> None:
    good = cache.fetch(tmp_path, MATERIAL, "onnx", build)
    read = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.parent == tmp_path / good.key:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    again = cache.fetch(tmp_path, MATERIAL, "onnx", build, progress=told)

    assert (again.cached, again.artifact, len(told.lines)) == (False, good.artifact, 1)


def test_a_lost_entry_is_built_anew_without_a_word(tmp_path: Path, told: Told) -> None:
    good = cache.fetch(tmp_path, MATERIAL, "onnx", build)
    shutil.rmtree(tmp_path / good.key)

    assert cache.fetch(tmp_path, MATERIAL, "onnx", build, progress=told).artifact == good.artifact
    assert told.lines == []


def test_links_that_lead_out_are_not_followed_when_an_entry_goes(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    entry = cache.fetch(tmp_path / "cache", MATERIAL, "onnx", build)
    (entry.artifact.path / "extra").symlink_to(outside)

    keeping.verify(keeping.list_entries(tmp_path / "cache"), Told())

    assert (outside / "precious").exists()


@pytest.mark.parametrize("stray", ["datasets", "deadbeef", "notes.txt", "0123"])
def test_what_is_no_entry_is_left_alone(tmp_path: Path, stray: str) -> None:
    cache.fetch(tmp_path, MATERIAL, "onnx", build)
    (tmp_path / stray).mkdir()

    assert keeping.verify(keeping.list_entries(tmp_path), Told()) == []
    assert (tmp_path / stray).is_dir()


def plant_a_link(out: Path) -> Facts:
    (out / "model.onnx").symlink_to("/etc/hostname")
    return {}


def test_a_stage_that_leaves_a_link_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"model.onnx: is neither a file nor a folder"):
        cache.fetch(tmp_path, MATERIAL, "onnx", plant_a_link)
    assert list(tmp_path.iterdir()) == []


USE = """
import pathlib, sys
from hostile import test_caches
from optimize import cache
from optimize.errors import StageError

root = pathlib.Path(sys.argv[1])
print(cache.fetch(root, test_caches.MATERIAL, "onnx", test_caches.build).cached)
try:
    cache.fetch(root, {"head": "another"}, "onnx", test_caches.build)
except StageError as error:
    print(error)
"""


def test_a_cache_that_may_only_be_read_serves_what_it_has_and_refuses_the_rest_in_a_line(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    cache.fetch(root, MATERIAL, "onnx", build)
    mount = f'mount --bind "{root}" "{root}" && mount -o remount,bind,ro "{root}"'
    alone = ("unshare", "-rm", "sh", "-c")
    if subprocess.run([*alone, mount], check=False, capture_output=True).returncode:
        pytest.skip("nobody may mount a disk here")

    words = [*alone, f'{mount}; exec "$@"', "sh", sys.executable, "-c", USE, str(root)]
    paths = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(optimize.__file__).parents[1])])
    done = subprocess.run(
        words, check=True, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths}, timeout=120
    )

    assert done.stdout.splitlines() == [
        "True",
        f"{root}: cannot be written to (Read-only file system); mend it, or name another folder with --cache",
    ]


def make_file(root: Path) -> None:
    root.write_bytes(b"")


@pytest.mark.parametrize(
    ("name", "make", "why"),
    [
        ("cache", make_file, "File exists"),
        ("file/cache", lambda root: make_file(root.parent), "Not a directory"),
        ("c" * 300, lambda root: None, "File name too long"),
    ],
    ids=["a file", "under a file", "too long"],
)
def test_a_cache_that_cannot_be_is_refused_in_a_line(tmp_path: Path, name: str, make, why: str) -> None:
    root = tmp_path / name
    make(root)

    with pytest.raises(StageError, match=rf"cannot be written to \({why}\); mend it, or name another"):
        cache.fetch(root, MATERIAL, "onnx", build)


def test_a_cache_that_is_deleted_under_a_build_is_refused_in_a_line(tmp_path: Path) -> None:
    def pull_away(out: Path) -> Facts:
        shutil.rmtree(tmp_path / "cache")
        return build(out)

    with pytest.raises(StageError, match=r"cannot be written to \(No such file or directory\)"):
        cache.fetch(tmp_path / "cache", MATERIAL, "onnx", pull_away)


def other(content: bytes) -> bytes:
    """Other content of the same length, in the middle of a safetensors file's numbers."""
    middle = len(content) * 3 // 4
    return content[:middle] + bytes(byte ^ 1 for byte in content[middle : middle + 8]) + content[middle + 8 :]


def put(path: Path, content: bytes) -> None:
    """Change a file so that neither its size nor its time tells."""
    before = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.fixture
def model(checkpoint: Callable[[str], Path], tmp_path: Path) -> Path:
    shutil.copytree(checkpoint(HEAD), tmp_path / "model")
    return tmp_path / "model"


def acquired(model: Path, root: Path) -> cache.Entry:
    return acquire_checkpoint(*inspect_checkpoint(str(model)), root=root, seed=0, progress=Told())


def test_weights_that_change_once_they_are_digested_are_refused(model: Path, tmp_path: Path, monkeypatch) -> None:
    weights = model / "model.safetensors"
    content = weights.read_bytes()

    def digest_and_swap(files: copies.Files) -> dict[str, str]:
        digests = copies.digests_of(files)
        put(weights, other(content))
        return digests

    monkeypatch.setattr(acquire, "digests_of", digest_and_swap)
    with pytest.raises(RequestError, match=r"model.safetensors: changed while it was read; run again"):
        acquired(model, tmp_path / "cache")
    monkeypatch.undo()

    assert list((tmp_path / "cache").iterdir()) == []
    put(weights, content)
    assert not acquired(model, tmp_path / "cache").cached


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_what_changes_while_it_is_loaded_shapes_nothing(model: Path, tmp_path: Path, monkeypatch, name: str) -> None:
    """Swapped as loading begins, and put back after: neither the digests before nor those after would tell."""
    good = acquired(model, tmp_path / "undisturbed")
    content = (model / name).read_bytes()
    load = acquire.raise_to_fp32

    def swap_and_load(folder: Path, *rest: object, **named: str) -> Facts:
        put(model / name, other(content))
        facts = load(folder, *rest, **named)
        put(model / name, content)
        return facts

    monkeypatch.setattr(acquire, "raise_to_fp32", swap_and_load)
    entry = acquired(model, tmp_path / "cache")

    assert (entry.artifact.digest, entry.cached) == (good.artifact.digest, False)


def test_other_weights_of_the_same_size_and_time_are_another_entry(model: Path, tmp_path: Path) -> None:
    first = acquired(model, tmp_path / "cache")
    content = (model / "model.safetensors").read_bytes()

    put(model / "model.safetensors", other(content))
    second = acquired(model, tmp_path / "cache")
    put(model / "model.safetensors", content)
    third = acquired(model, tmp_path / "cache")

    assert (second.cached, second.artifact.digest != first.artifact.digest) == (False, True)
    assert (third.cached, third.artifact.digest) == (True, first.artifact.digest)


def test_files_that_are_not_digested_are_not_loaded(model: Path, tmp_path: Path) -> None:
    first = acquired(model, tmp_path / "one")
    (model / "added.py").write_text("raise SystemExit", encoding="utf-8")
    (model / "generation_config.json").write_text('{"max_length": 7}', encoding="utf-8")

    assert acquired(model, tmp_path / "two").artifact.digest == first.artifact.digest
    assert acquired(model, tmp_path / "one").cached
