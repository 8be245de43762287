"""A shared cache in servers of S3, of Google's and Azure's protocol, whose writers are killed while they write."""

from __future__ import annotations

import json
import logging
import os
import random
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest
from environments.made import ROOT, run_there, store_clients

from optimize.machine.environment import cache_root

pytestmark = [pytest.mark.environments, pytest.mark.timeout(3600)]  # environments are installed
BYTES = int(os.environ.get("OPTIMIZE_TEST_ENTRY_BYTES", "4000000"))
KILLS = int(os.environ.get("OPTIMIZE_TEST_KILLS", "5"))
ENTRIES = 6
MADE = """
import random, sys
from optimize import cache

address, first, after = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

def material(number):
    return {"stage": "export", "head": "fill-mask", "number": number}

def content(writer, number, size):
    return random.Random(f"{writer} {number}").randbytes(size)
"""
"""What is written and looked at: entries of these numbers."""
WRITE = f"""{MADE}
writer, size = sys.argv[4], int(sys.argv[5])

def build(number, out):
    (out / "model.onnx").write_bytes(content(writer, number, size))
    return {{"writer": writer, "size": size}}

root = cache.open_place(address)
print("begins", flush=True)
for number in random.sample(range(first, after), after - first):
    print(cache.fetch(root, material(number), "onnx", lambda out: build(number, out)).key, flush=True)
"""
"""What a writer builds is another thing each time, as that of a stage may be."""
LOOK = f"""{MADE}
import json
from pathlib import Path
from optimize.cache.keys import key_of
from optimize.cache.shared import download, object_name, reach
from optimize.files.leftovers import owned_partial
from optimize.interfaces import Silence

shared, found = reach(address), {{}}
for number in range(first, after):
    key, _ = key_of(material(number))
    with owned_partial(Path(sys.argv[4]), key) as folder:
        if shared.objects.facts(object_name(key)) is not None:
            entry = download(shared, folder, Silence())
            made = (folder / "artifact" / "model.onnx").read_bytes() if entry else None
            found[key] = entry is not None and made == content(entry.facts["writer"], number, entry.facts["size"])
print(json.dumps(found))
"""
"""Of each entry in the store, whether it is what the one writer made whom it names."""
READ = f"""{MADE}
def never(out):
    raise SystemExit("is built, where it is there already")

for number in range(first, after):
    print(cache.fetch(cache.open_place(address), material(number), "onnx", never).key)
"""
DAMAGE = """
import sys
import fsspec

system, path = fsspec.core.url_to_fs(sys.argv[1])
content = bytearray(system.cat_file(path))
content[len(content) // 2] ^= 255
system.pipe_file(path, bytes(content))
"""
ASK = """
import sys
from optimize.cache import require_reachable
from optimize.errors import RequestError

try:
    require_reachable(sys.argv[1])
except RequestError as error:
    print(error)
"""


@pytest.fixture(autouse=True)
def environments_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each machine has a cache of its own; environments stay in the user's."""
    monkeypatch.setattr("environments.made.cache_root", partial(Path, cache_root()))


def begin(address: str, first: int, after: int, writer: str, home: Path) -> subprocess.Popen[str]:
    """A writer of a machine of its own, which has begun."""
    words = [store_clients(), "-c", WRITE, address, first, after, writer, BYTES]
    known = os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(home)}
    process = subprocess.Popen([*map(str, words)], env=known, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "begins\n"
    return process


def written(process: subprocess.Popen[str]) -> set[str]:
    """The keys that a writer said it had finished, to the last letter."""
    said, _ = process.communicate(timeout=600)
    return set(said.split("\n")[:-1])


def test_writers_that_are_killed_at_random_moments_leave_whole_entries_and_lose_none(bucket, tmp_path, monkeypatch):
    address, moments = f"{bucket}/killed", random.Random(1)
    alone = begin(f"{bucket}/whole", 0, ENTRIES, "alone", tmp_path / "alone")
    began = time.monotonic()
    assert len(written(alone)) == ENTRIES
    seconds = time.monotonic() - began

    finished, ended, counts = set[str](), 0, []
    for number in range(KILLS):
        # Every other time machines and entries are new; else they go on with what they have.
        first = number // 2 * ENTRIES
        homes = [tmp_path / f"{first}-{name}" for name in ("one", "two")]
        writers = [begin(address, first, first + ENTRIES, f"{number} {home.name}", home) for home in homes]
        time.sleep(moments.uniform(0, seconds))
        for process in writers:
            process.kill()
            time.sleep(moments.uniform(0, seconds / 4))
        done = set[str]().union(*map(written, writers))
        ended += sum(process.returncode == 0 for process in writers)
        found = json.loads(run_there(store_clients(), "-c", LOOK, address, first, first + ENTRIES, tmp_path / "look"))
        assert set(found.values()) <= {True}, found
        assert done <= set(found)
        finished |= done
        counts.append(len(found))
    logging.getLogger(__name__).info("%d of %d writers came to their end; entries: %s", ended, 2 * KILLS, counts)

    # Who comes last builds what nobody finished, and all others take it.
    entries = (KILLS + 1) // 2 * ENTRIES
    last = written(begin(address, 0, entries, "last", tmp_path / "last"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "reader"))
    read = run_there(store_clients(), "-c", READ, address, 0, entries).split()
    assert finished <= last == set(read)
    assert len(read) == entries
    assert not list((tmp_path / "last").rglob("unsent"))


def asked(*words: object, code: int = 0) -> dict[str, list[dict[str, str]]]:
    """What `optimize cache` answers a client."""
    return json.loads(run_there(store_clients(), "-m", "optimize", "cache", *words, "--json", accepted=(code,)))


def test_a_store_is_listed_verified_and_cleared_by_its_own_client(bucket, tmp_path, monkeypatch):
    address = f"{bucket}/kept"
    keys = written(begin(address, 0, 3, "one", tmp_path / "one"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "here"))

    listed = asked("ls", "--cache", f"read+{address}")["entries"]
    assert {each["key"] for each in listed} == keys
    assert {(each["stage"], each["head"], each["age_seconds"] < 600) for each in listed} == {
        ("export", "fill-mask", True)
    }

    damaged = min(keys)
    run_there(store_clients(), "-c", DAMAGE, f"{address}/{damaged}.tar")
    assert [each["key"] for each in asked("verify", "--cache", address, code=3)["damaged"]] == [damaged]
    assert asked("verify", "--cache", address) == {"damaged": [], "damaged_here": []}

    youngest = asked("ls", "--cache", address)["entries"][0]
    removed = asked("gc", "--keep", youngest["size_bytes"], "--cache", address)["removed"]
    assert {each["key"] for each in removed} == keys - {damaged, youngest["key"]}
    assert [each["key"] for each in asked("ls", "--cache", address)["entries"]] == [youngest["key"]]


def test_a_bucket_that_is_not_there_is_refused_before_anything_is_built(bucket):
    assert run_there(store_clients(), "-c", ASK, f"{bucket}2/x").strip() == f"{bucket}2/x: is not there; check --cache"
