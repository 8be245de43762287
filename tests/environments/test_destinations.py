"""Publications in Debian's docker-registry, and by fsspec's clients in servers of S3, of Google's and Azure's protocol.

They are put, killed while they are put, replaced, fetched, verified and asked, each in the client's own environment.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from environments.made import ROOT, run_there, store_clients
from environments.serving import free_port, serving
from finished import PIPELINE, measured_run
from publishing.conftest import contents, lay_out

import optimize
from optimize.errors import RequestError
from optimize.interfaces import Silence
from optimize.machine.environment import cache_root
from optimize.publishing.destinations import destination_of
from optimize.publishing.destinations.interface import Terms
from optimize.publishing.fetching import fetch
from optimize.publishing.publish import publish

pytestmark = [pytest.mark.environments, pytest.mark.timeout(1800)]  # environments are installed
BYTES = int(os.environ.get("OPTIMIZE_TEST_UPLOAD_BYTES", "25165824"))
KILLS = int(os.environ.get("OPTIMIZE_TEST_KILLS", "2"))
TEXT = "The train is late today."
PUT = """
import sys
from pathlib import Path
from optimize.errors import OptimizeError
from optimize.interfaces import Silence
from optimize.publishing.destinations import destination_of
from optimize.publishing.destinations.interface import Terms
folder, place, *replace = sys.argv[1:]
print("begins", flush=True)
try:
    print(destination_of(place).put(Path(folder), place, Terms(replace=bool(replace)), Silence()))
except OptimizeError as error:
    print(error)
"""
FETCH = """
import sys
from optimize.errors import OptimizeError
from optimize.publishing.fetching import fetch
try:
    print(fetch(sys.argv[1]))
except OptimizeError as error:
    print(error)
"""


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """The host of an empty registry."""
    if (program := shutil.which("docker-registry")) is None:
        pytest.skip("docker-registry is not installed")
    host = f"127.0.0.1:{free_port()}"
    (tmp_path / "registry.yml").write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {tmp_path}/blobs}}}}\nhttp: {{addr: '{host}'}}\n"
    )
    with serving([program, "serve", tmp_path / "registry.yml"], tmp_path / "registry.log", f"http://{host}/v2/", {}):
        yield host


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A publication whose model has some size."""
    return lay_out(tmp_path / "large", {"model.onnx": np.random.default_rng(0).bytes(BYTES), "config.json": b"{}"})


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where what is fetched goes; environments stay in the user's own."""
    monkeypatch.setattr("environments.made.cache_root", partial(Path, cache_root()))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def put(folder: Path, place: str, **terms: bool) -> str:
    destination, how = destination_of(place), Terms(**terms)
    destination.check(place, how)
    return destination.put(folder, place, how, Silence())


def test_a_registry_has_a_publication_under_its_tag_and_its_digest(registry, large, tmp_path):
    place = f"oci://{registry}/me/model:v1"
    pinned = put(large, place)

    assert put(large, place) == pinned
    assert contents(fetch(place)) == contents(fetch(pinned)) == contents(large)

    other = lay_out(tmp_path / "other", {"model.onnx": b"another"})
    with pytest.raises(RequestError, match="has other content"):
        put(other, place)
    put(other, place, replace=True)
    assert contents(fetch(place)) == contents(other)
    assert contents(fetch(pinned)) == contents(large)


def test_a_layer_that_was_swapped_is_refused(registry, large, tmp_path):
    place = f"oci://{registry}/me/model:v1"
    put(large, place)
    (blob,) = (path for path in (tmp_path / "blobs").rglob("data") if path.stat().st_size == BYTES)
    blob.write_bytes(bytes(BYTES))

    with pytest.raises(RequestError, match=r"another layer than its digest says|is not what its SHA256SUMS says"):
        fetch(place)


def put_there(folder: Path, place: str, *replace: str) -> str:
    """What a client says at the end: the place, or why it refuses."""
    return run_there(store_clients(), "-c", PUT, folder, place, *replace).splitlines()[-1]


def fetched_there(place: str) -> dict[str, bytes]:
    return contents(Path(run_there(store_clients(), "-c", FETCH, place).strip()))


def test_a_store_keeps_what_it_has_unless_it_may_be_replaced(bucket, large, tmp_path):
    place, other = (
        f"{bucket}/some/model",
        lay_out(tmp_path / "other", {"model.onnx": b"another", "new/file.json": b"[]"}),
    )
    assert put_there(large, place) == put_there(large, place) == place
    assert put_there(other, place) == f"{place}: has other content; name a new folder, or add --replace"
    assert fetched_there(place) == contents(large)

    assert put_there(other, place, "replace") == place
    assert fetched_there(place) == contents(other)


def test_a_bucket_that_is_not_there_is_no_fault_of_the_network(bucket, large):
    assert "is not there; check the address" in put_there(large, f"{bucket}2/model")


@pytest.fixture(scope="module")
def run_folder(checkpoint, data_folder, tmp_path_factory) -> Path:
    """A finished run, which no limit judges."""
    model, data = checkpoint("text-classification"), data_folder("text-classification")
    return measured_run(tmp_path_factory.mktemp("run"), "export", PIPELINE, model=model, data=data)


def test_a_model_in_a_store_is_verified_and_asked(bucket, run_folder, tmp_path):
    publish(run_folder, str(tmp_path / "published"), unverified=True)
    place = put_there(tmp_path / "published", f"{bucket}/model")

    assert "model: proven" in run_there(store_clients(), "-m", "optimize", "verify", place)
    said = json.loads(run_there(store_clients(), "-m", "optimize", "predict", place, TEXT))
    assert said["score"] == pytest.approx(optimize.load(run_folder, threads=1)(TEXT)[0]["score"], abs=1e-4)


def test_uploads_to_stores_that_are_killed_at_random_moments_are_never_half_seen(bucket, large):
    python = store_clients()
    began = time.monotonic()
    put_there(large, f"{bucket}/whole")
    seconds, moments = time.monotonic() - began, random.Random(1)
    expected = contents(large)

    for number in range(KILLS):
        place, words = f"{bucket}/{number}", [python, "-c", PUT, str(large)]
        process = subprocess.Popen(
            [*map(str, words), place], env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE
        )
        assert process.stdout.readline() == b"begins\n"
        time.sleep(moments.uniform(0, seconds))
        process.kill()
        process.communicate()

        seen = run_there(python, "-c", FETCH, place).strip()
        assert "no publication is there" in seen or "not finished" in seen or contents(Path(seen)) == expected
        assert put_there(large, place) == place
        assert fetched_there(place) == expected
