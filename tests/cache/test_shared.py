"""A shared cache: what one machine built, the others take, as it was sealed or not at all; what fails is said."""

from __future__ import annotations

import errno
import io
import itertools
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
from doubles import Heard

from optimize import cache
from optimize.cache import entries, shared
from optimize.errors import RequestError, StageError, UnavailableError
from optimize.interfaces import Facts

MATERIAL = {"stage": "export", "head": "fill-mask", "seed": 0}
WEIGHTS = b"weights" * 1000
NUMBERS = itertools.count()
KEPT = "; what is finished is kept in {root}, and the same command goes on from there"
Machine = Callable[[str], Path]


@pytest.fixture(params=["memory", "file"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a new store: of a kind whose objects appear whole, and of one whose files are seen to grow."""
    return f"memory://shared/{next(NUMBERS)}" if request.param == "memory" else f"file://{tmp_path}/store/here"


@pytest.fixture
def machine(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """The copy that a machine of this name has of the shared cache."""

    def go_to(name: str) -> Path:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
        return cache.open_place(address)

    return go_to


@pytest.fixture
def heard() -> Heard:
    return Heard()


def build(out: Path) -> Facts:
    (out / "model.onnx").write_bytes(WEIGHTS)
    (out / "more").mkdir()
    (out / "more" / "config.json").write_text("{}", encoding="utf-8")
    return {"fused": 6}


def never(out: Path) -> Facts:
    pytest.fail("is built, where it is there already")


def opened(address: str) -> tuple[fsspec.AbstractFileSystem, str]:
    return fsspec.core.url_to_fs(address)


def stored(address: str) -> dict[str, bytes]:
    """All that the store has, by name."""
    system, root = opened(address)
    return {path.removeprefix(f"{root}/"): system.cat_file(path) for path in system.find(root)}


def put(address: str, name: str, content: bytes) -> None:
    system, root = opened(address)
    system.pipe_file(f"{root}/{name}", content)


def leftovers(root: Path) -> list[str]:
    return [path.name for path in root.iterdir() if path.name.startswith(".")]


def test_what_one_machine_built_others_take(machine: Machine, address: str) -> None:
    first = cache.fetch(machine("one"), MATERIAL, "onnx", build)

    root = machine("two")
    second = cache.fetch(root, MATERIAL, "onnx", never)

    assert (first.cached, second.cached) == (False, True)
    assert second.artifact == first.artifact.model_copy(update={"path": root / first.key / "artifact"})
    assert (second.facts, second.key) == (first.facts, first.key)
    assert (second.artifact.path / "more" / "config.json").read_text() == "{}"
    assert leftovers(root) == []
    assert set(stored(address)) == {f"{first.key}.tar"}


def test_what_is_here_is_not_asked_for_there(machine: Machine, address: str, monkeypatch) -> None:
    root = machine("one")
    cache.fetch(root, MATERIAL, "onnx", build)
    monkeypatch.setattr(shared, "reach", lambda *_, **__: pytest.fail("asks the store"))

    assert cache.fetch(root, MATERIAL, "onnx", never).cached


def test_what_is_damaged_here_is_taken_from_there(machine: Machine, heard: Heard) -> None:
    root = machine("one")
    good = cache.fetch(root, MATERIAL, "onnx", build)
    (good.artifact.path / "model.onnx").write_bytes(b"weighty")

    assert cache.fetch(root, MATERIAL, "onnx", never, progress=heard).artifact == good.artifact
    assert len(heard.lines) == 1


def test_a_folder_alone_says_which_store_it_is_the_copy_of(machine: Machine, address: str, monkeypatch) -> None:
    root = machine("one")

    assert (root, root) == (cache.place_of(address), cache.place_of(f"{address}/"))
    assert cache.address_of(root) == address
    assert cache.address_of(root.parent) is None
    assert cache.place_of(f"{address}2") != root


SHARE = """
import pathlib, sys
from optimize import cache

def build(out):
    (out / "model.onnx").write_bytes(b"weights")
    return {}

print(cache.fetch(pathlib.Path(sys.argv[1]), {"input": "abc"}, "onnx", build).key)
"""


def test_another_process_shares_by_the_folder_alone(tmp_path: Path, monkeypatch) -> None:
    address = f"file://{tmp_path}/store"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    words = [sys.executable, "-c", SHARE, str(cache.open_place(address))]

    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)

    assert set(stored(address)) == {f"{done.stdout.strip()}.tar"}


def test_an_entry_is_the_same_object_whoever_packs_it_when(machine: Machine, address: str) -> None:
    entry = cache.fetch(machine("one"), MATERIAL, "onnx", build)
    (first,) = stored(address).values()
    for path in (entry.artifact.path.parent).rglob("*"):
        os.utime(path, (0, 0))
        path.chmod(0o700)
    (entry.artifact.path.parent / entries.UNSENT).touch()

    cache.fetch(machine("one"), MATERIAL, "onnx", never)

    (second,) = stored(address).values()
    assert first == second
    with tarfile.open(fileobj=io.BytesIO(first)) as tar:
        assert {(each.mtime, each.uid, each.gid, each.uname, each.mode) for each in tar} == {(0, 0, 0, "", 0o644)}
        names = tar.getnames()
    assert names == ["material.json", "entry.json", "entry.sha256", "artifact/model.onnx", "artifact/more/config.json"]


# Damage.


def members(content: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return {each.name: tar.extractfile(each).read() for each in tar}


def packed(files: dict[str, bytes], *more: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """A tar of files, and of members that are made otherwise."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for info, content in more:
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def with_file(name: str, content: bytes = b"more") -> Callable[[bytes], bytes]:
    """The same tar with a file more, or another one in a file's place."""
    return lambda tar: packed({**members(tar), name: content})


def with_member(name: str, kind: bytes, target: str = "") -> Callable[[bytes], bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return lambda tar: packed(members(tar), (info, b""))


def with_link_first(tar: bytes) -> bytes:
    """A link to a folder outside, and a file that is to be written through it."""
    link, file = tarfile.TarInfo("artifact/out"), tarfile.TarInfo("artifact/out/escaped")
    link.type, link.linkname = tarfile.SYMTYPE, "/tmp"
    file.size = 4
    return packed({}, (link, b""), (file, b"more")) + tar


def flipped(tar: bytes, needle: bytes) -> bytes:
    place = tar.index(needle)
    return tar[:place] + bytes([tar[place] ^ 1]) + tar[place + 1 :]


def of_another_key(tar: bytes) -> bytes:
    files = members(tar)
    return packed({**files, "material.json": files["material.json"].replace(b'"seed": 0', b'"seed": 1')})


def huge(tar: bytes) -> bytes:
    """A member that says it has 4 TiB."""
    info = tarfile.TarInfo("artifact/model.onnx")
    info.size = 2**42
    return info.tobuf(tarfile.PAX_FORMAT) + tar


def headers_without_end(tar: bytes) -> bytes:
    info = tarfile.TarInfo("artifact/x" * 100_000)
    return info.tobuf(tarfile.PAX_FORMAT) + tar


def sparse(tar: bytes) -> bytes:
    info = tarfile.TarInfo("artifact/model.onnx")
    info.pax_headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": str(2**40), "GNU.sparse.numblocks": "1"}
    return info.tobuf(tarfile.PAX_FORMAT) + tar


def without(name: str) -> Callable[[bytes], bytes]:
    return lambda tar: packed({each: content for each, content in members(tar).items() if each != name})


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda tar: b"",
    "half of it": lambda tar: tar[: len(tar) // 2],
    "a byte less than its content": lambda tar: tar[: tar.rindex(b"{}") + 1],
    "cut between files": lambda tar: tar[: tar.index(b"artifact/more")],
    "no tar": lambda tar: b"<html>Not Found</html>" * 100,
    "a byte of the model": lambda tar: flipped(tar, WEIGHTS),
    "a byte of the material": lambda tar: flipped(tar, b"fill-mask"),
    "a byte of the record": lambda tar: flipped(tar, b"fused"),
    "a byte of a name": lambda tar: flipped(tar, b"artifact/model.onnx"),
    "another entry": of_another_key,
    "a lost model": without("artifact/model.onnx"),
    "a lost record": without("entry.json"),
    "a lost material": without("material.json"),
    "a file more": with_file("artifact/extra.json"),
    "a file beside": with_file("extra.json"),
    "a mark of ours": with_file("unsent", b""),
    "another model": with_file("artifact/model.onnx"),
    "a file twice": lambda tar: packed(members(tar), (tarfile.TarInfo("artifact/model.onnx"), b"")),
    "a file that is a folder": with_file("artifact/model.onnx/x"),
    "a file above": with_file("../escaped"),
    "a file far above": with_file("artifact/../../../../../escaped"),
    "an absolute name": with_file("/tmp/escaped"),
    "an empty part of a name": with_file("artifact//escaped"),
    "a long name": with_file("artifact/" + "x" * 300),
    "a deep name": with_file("artifact/" + "x/" * 200 + "x"),
    "a name of two lines": with_file("artifact/a\nb"),
    "a name that is no text": with_file("artifact/\udcff"),
    "a link": with_member("artifact/link", tarfile.SYMTYPE, "/etc/passwd"),
    "a hard link": with_member("artifact/link", tarfile.LNKTYPE, "artifact/model.onnx"),
    "a device": with_member("artifact/null", tarfile.CHRTYPE),
    "a pipe": with_member("artifact/pipe", tarfile.FIFOTYPE),
    "a folder": with_member("artifact/empty", tarfile.DIRTYPE),
    "a link to write through": with_link_first,
    "a huge file": huge,
    "a sparse file": sparse,
    "headers without end": headers_without_end,
    "files without end": lambda tar: packed({**members(tar), **{f"artifact/{each}": b"" for each in range(1001)}}),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_what_is_damaged_there_is_built_anew_and_replaced(damage, machine: Machine, address: str, heard: Heard) -> None:
    good = cache.fetch(machine("one"), MATERIAL, "onnx", build)
    name = f"{good.key}.tar"
    whole = stored(address)[name]
    put(address, name, damage(whole))
    root = machine("two")

    again = cache.fetch(root, MATERIAL, "onnx", build, progress=heard)

    assert heard.lines == [f"cache: {address}/{name} is damaged; it is built again"]
    assert (again.cached, again.artifact.digest) == (False, good.artifact.digest)
    assert leftovers(root) == []
    assert {path.name for path in root.iterdir()} == {good.key, "address.txt"}
    assert not list(root.parents[3].rglob("escaped"))
    assert not Path("/tmp/escaped").exists()
    assert set(stored(address)) == {name}
    assert cache.fetch(machine("three"), MATERIAL, "onnx", never).artifact.digest == good.artifact.digest


def test_an_entry_of_another_kind_is_not_taken(machine: Machine, address: str, heard: Heard) -> None:
    cache.fetch(machine("one"), MATERIAL, "onnx", build)
    assert not cache.fetch(machine("two"), MATERIAL, "torch", build, progress=heard).cached
    assert len(heard.lines) == 1


def test_an_object_that_is_larger_than_any_entry_is_not_downloaded(machine: Machine, heard: Heard, monkeypatch) -> None:
    cache.fetch(machine("one"), MATERIAL, "onnx", build)
    monkeypatch.setattr(shared, "MOST_BYTES", 1000)
    monkeypatch.setattr(shared.Objects, "get", lambda *_: pytest.fail("is downloaded"))

    assert not cache.fetch(machine("two"), MATERIAL, "onnx", build, progress=heard).cached


# Several writers.


def test_of_two_who_build_one_entry_the_last_is_taken_and_nothing_is_mixed(machine: Machine, address: str) -> None:
    def another(out: Path) -> Facts:
        """A stage that does not come out the same twice, and meanwhile another machine builds it, too."""
        slow, fast = cache.place_of(address), machine("fast")
        cache.fetch(fast, MATERIAL, "onnx", build)
        assert machine("slow") == slow
        (out / "other.onnx").write_bytes(b"others")
        return {"fused": 5}

    last = cache.fetch(machine("slow"), MATERIAL, "onnx", another)
    first = cache.fetch(machine("fast"), MATERIAL, "onnx", never)
    third = cache.fetch(machine("third"), MATERIAL, "onnx", never)

    assert (last.facts, first.facts) == ({"fused": 5}, {"fused": 6})
    assert (third.facts, third.artifact.digest) == (last.facts, last.artifact.digest)


def test_what_is_replaced_while_it_is_read_is_read_again(
    machine: Machine, address: str, heard: Heard, monkeypatch
) -> None:
    key = cache.fetch(machine("one"), MATERIAL, "onnx", build).key
    get, name = shared.Objects.get, f"{key}.tar"
    whole = stored(address)[name]
    mixed = iter([True, False])

    def get_parts(objects: shared.Objects, name: str, file: Path) -> bool:
        there = get(objects, name, file)
        if next(mixed):  # of the first half one object, of the second another
            file.write_bytes(whole[: len(whole) // 2])
            put(address, name, whole + bytes(512))
        return there

    monkeypatch.setattr(shared.Objects, "get", get_parts)

    assert cache.fetch(machine("two"), MATERIAL, "onnx", never, progress=heard).cached
    assert heard.lines == []


def test_what_is_removed_before_it_is_read_is_built(machine: Machine, address: str, monkeypatch) -> None:
    cache.fetch(machine("one"), MATERIAL, "onnx", build)
    get = shared.Objects.get

    def remove_and_get(objects: shared.Objects, name: str, file: Path) -> bool:
        objects.remove([name])
        return get(objects, name, file)

    monkeypatch.setattr(shared.Objects, "get", remove_and_get)

    assert not cache.fetch(machine("two"), MATERIAL, "onnx", build).cached


def test_files_get_their_names_once_they_are_whole(tmp_path: Path, monkeypatch) -> None:
    address, system = f"file://{tmp_path}/store", fsspec.filesystem("file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    seen = list[str]()
    put_file = system.put_file
    monkeypatch.setattr(system, "put_file", lambda source, to: (seen.append(Path(to).name), put_file(source, to)))

    key = cache.fetch(cache.open_place(address), MATERIAL, "onnx", build).key

    assert [name.startswith(".partial-") for name in seen] == [True]
    assert set(stored(address)) == {f"{key}.tar"}


def test_a_writer_that_is_interrupted_leaves_nothing(tmp_path: Path, monkeypatch) -> None:
    address, system = f"file://{tmp_path}/store", fsspec.filesystem("file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))

    def half(source: str, to: str) -> None:
        Path(to).write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(system, "put_file", half)
        with pytest.raises(KeyboardInterrupt):
            cache.fetch(cache.open_place(address), MATERIAL, "onnx", build)
    assert stored(address) == {}

    key = cache.fetch(cache.open_place(address), MATERIAL, "onnx", never).key
    assert set(stored(address)) == {f"{key}.tar"}


# Stores that fail.


def failing(monkeypatch: pytest.MonkeyPatch, address: str, method: str, error: Exception) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(opened(address)[0], method, fail)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError("reset"), "cannot be reached (OSError); check the network and --cache"),
        (TimeoutError(), "does not answer in time; try again later"),
        (PermissionError("no"), "these credentials do not allow that; check them and --cache"),
        (OSError(errno.ENOSPC, "No space left on device"), "its disk is full; free some space there"),
    ],
    ids=["gone", "silent", "forbidden", "full"],
)
def test_a_store_that_fails_while_an_entry_is_put_loses_nothing(
    error: Exception, says: str, machine: Machine, address: str, heard: Heard, monkeypatch
) -> None:
    root = machine("one")
    with monkeypatch.context() as patch:
        failing(patch, address, "put_file", error)
        with pytest.raises(UnavailableError) as refusal:
            cache.fetch(root, MATERIAL, "onnx", build)
    assert str(refusal.value) == f"{address}: {says}{KEPT.format(root=root)}"
    assert leftovers(root) == []
    assert stored(address) == {}

    entry = cache.fetch(root, MATERIAL, "onnx", never, progress=heard)

    assert (entry.cached, heard.lines) == (True, [])
    assert set(stored(address)) == {f"{entry.key}.tar"}
    assert cache.fetch(machine("two"), MATERIAL, "onnx", never).artifact.digest == entry.artifact.digest


@pytest.mark.parametrize("method", ["info", "get_file"])
def test_a_store_that_fails_while_an_entry_is_asked_for_says_so(
    method, machine: Machine, address: str, monkeypatch
) -> None:
    entry = cache.fetch(machine("one"), MATERIAL, "onnx", build)
    root = machine("two")
    failing(monkeypatch, address, method, OSError("reset"))

    with pytest.raises(UnavailableError) as refusal:
        cache.fetch(root, MATERIAL, "onnx", never)

    words = "cannot be reached (OSError); check the network and --cache"
    assert str(refusal.value) == f"{address}: {words}{KEPT.format(root=root)}"
    assert not (root / entry.key).exists()
    assert leftovers(root) == []


def test_a_disk_that_is_full_here_is_not_the_stores(machine: Machine, address: str, monkeypatch) -> None:
    cache.fetch(machine("one"), MATERIAL, "onnx", build)
    root = machine("two")
    failing(monkeypatch, address, "get_file", OSError(errno.ENOSPC, "No space left on device"))

    with pytest.raises(StageError) as refusal:
        cache.fetch(root, MATERIAL, "onnx", never)
    assert str(refusal.value) == f"{root}: the disk is full; free some space or name another folder with --cache"


def test_a_folder_in_an_entrys_place_is_refused(tmp_path: Path, monkeypatch) -> None:
    address = f"file://{tmp_path}/store"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    key = cache.fetch(cache.open_place(address), MATERIAL, "onnx", build).key
    (tmp_path / "store" / f"{key}.tar").unlink()
    (tmp_path / "store" / f"{key}.tar").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))

    with pytest.raises(UnavailableError, match=rf"its {key}.tar is a folder; move that away; what is finished is kept"):
        cache.fetch(cache.open_place(address), MATERIAL, "onnx", build)
    assert [path.name for path in (tmp_path / "store").rglob("*")] == [f"{key}.tar"]


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["a pipe", "without end"])
def test_what_is_no_file_there_is_not_read_but_replaced(make, tmp_path: Path, monkeypatch) -> None:
    address = f"file://{tmp_path}/store"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    key = cache.fetch(cache.open_place(address), MATERIAL, "onnx", build).key
    (tmp_path / "store" / f"{key}.tar").unlink()
    make(tmp_path / "store" / f"{key}.tar")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))

    assert not cache.fetch(cache.open_place(address), MATERIAL, "onnx", build).cached
    assert (tmp_path / "store" / f"{key}.tar").is_file()
    assert not (tmp_path / "store" / f"{key}.tar").is_symlink()


# Addresses.


@pytest.mark.parametrize(
    "secret", ["s3://user:password@bucket/x", "az://box/x?sig=abc", "read+sftp://me:word@host/x", "s3://bucket/x#abc"]
)
def test_an_address_with_a_secret_is_refused_before_it_is_kept(secret: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    with pytest.raises(RequestError, match=r"--cache: .* holds a password or a query") as refusal:
        cache.open_place(secret)
    assert not {"word", "sig", "abc"} & set(str(refusal.value).replace("/", " ").replace("password", " ").split())
    assert not (tmp_path / "home").exists()


def test_an_account_without_a_password_is_no_secret(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    for place in ("sftp://me@host/x", "abfs://box@account.dfs.core.windows.net/x"):
        assert cache.address_of(cache.open_place(place)) == place


def test_a_file_of_another_machine_is_refused() -> None:
    with pytest.raises(RequestError, match="is on another machine"):
        cache.place_of("file://server/cache")


def test_folders_are_as_they_were(tmp_path: Path) -> None:
    assert (cache.open_place(tmp_path / "x"), cache.open_place("some/folder")) == (tmp_path / "x", Path("some/folder"))
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("content", [b"", b"nowhere\n"])
def test_an_address_that_was_lost_is_written_again(content: bytes, machine: Machine, address: str) -> None:
    root = machine("one")
    (root / "address.txt").write_bytes(content)

    assert cache.address_of(root) is None
    assert cache.address_of(machine("one")) == address


@pytest.mark.parametrize("content", [b"\xff\xfe", b"x" * 5000], ids=["binary", "long"])
def test_an_address_that_cannot_be_read_is_refused(content: bytes, machine: Machine) -> None:
    root = machine("one")
    (root / "address.txt").write_bytes(content)

    with pytest.raises(RequestError, match=r"address.txt: cannot be read .*; remove it"):
        machine("one")


def test_what_is_only_read_is_taken_and_nothing_is_put(machine: Machine, address: str, monkeypatch) -> None:
    entry = cache.fetch(machine("one"), MATERIAL, "onnx", build)
    before = stored(address)
    machine("two")
    root = cache.open_place(f"read+{address}")

    assert root != cache.place_of(address)
    assert cache.fetch(root, MATERIAL, "onnx", never).key == entry.key
    assert not cache.fetch(root, {**MATERIAL, "seed": 1}, "onnx", build).cached
    assert stored(address) == before
    assert not list(root.glob("*/unsent"))


def test_a_new_store_is_begun_with_a_word_on_what_it_is(address: str) -> None:
    with pytest.raises(RequestError, match="no shared cache is there; check --cache"):
        cache.require_reachable(f"read+{address}")
    cache.require_reachable(address)
    cache.require_reachable(address)
    cache.require_reachable(f"read+{address}")
    assert stored(address) == {"README.txt": shared.SAYS}


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("nosuch://bucket/x", "is no address of a kind that is known; check --cache"),
        ("memory://", "names no folder"),
        ("https://host/x", "can only be read"),
        ("simplecache::memory://x", "is a chain of addresses"),
    ],
)
def test_addresses_that_no_cache_can_be_at_are_refused(address: str, says: str) -> None:
    with pytest.raises(RequestError, match=says):
        cache.require_reachable(address)


def test_unpacking_ends_whatever_a_byte_becomes(tmp_path: Path, machine: Machine, address: str) -> None:
    """A byte is flipped, here and there: what comes is sound or damaged, and no other error."""
    key = cache.fetch(machine("one"), MATERIAL, "onnx", lambda out: {"n": (out / "model.onnx").write_bytes(b"x")}).key
    whole, found = stored(address)[f"{key}.tar"], set[bool]()
    for place in range(0, len(whole), 41):
        tar, folder = tmp_path / "x.tar", tmp_path / f"{place}" / key
        folder.mkdir(parents=True)
        tar.write_bytes(whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1 :])
        found.add(shared._unpacked(tar, folder) is None)
    assert found == {True, False}  # padding matters to nobody
