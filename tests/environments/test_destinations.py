"""Publications in Debian's docker-registry and, by s3fs, in moto's S3 server: put, killed, fetched."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from environments.made import ROOT, moto, run_there, s3_client
from environments.serving import free_port, serving
from publishing.conftest import contents, lay_out

from optimize.errors import RequestError
from optimize.interfaces import Silence
from optimize.machine.environment import cache_root
from optimize.publishing.destinations import destination_of
from optimize.publishing.destinations.interface import Terms
from optimize.publishing.fetching import fetch

pytestmark = [pytest.mark.environments, pytest.mark.timeout(1800)]  # environments are installed
BYTES = int(os.environ.get("OPTIMIZE_TEST_UPLOAD_BYTES", "25165824"))
KILLS = int(os.environ.get("OPTIMIZE_TEST_KILLS", "2"))
PUT = """
import sys
from pathlib import Path
from optimize.interfaces import Silence
from optimize.publishing.destinations import destination_of
from optimize.publishing.destinations.interface import Terms
print("begins", flush=True)
destination_of(sys.argv[2]).put(Path(sys.argv[1]), sys.argv[2], Terms(), Silence())
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
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an empty bucket; the environment names its server."""
    address = f"http://127.0.0.1:{(port := free_port())}"
    command = [moto().parent / "moto_server", "-H", "127.0.0.1", "-p", port]
    named = {"AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
    for name, value in {**named, "AWS_DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    with serving(command, tmp_path / "moto.log", f"{address}/moto-api", {}):
        with urllib.request.urlopen(urllib.request.Request(f"{address}/bucket", method="PUT"), timeout=10):
            pass
        yield "s3://bucket/publication"


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


def test_uploads_to_s3_that_are_killed_at_random_moments_are_never_half_seen(bucket, large, tmp_path):
    python = s3_client()
    began = time.monotonic()
    run_there(python, "-c", PUT, large, f"{bucket}/whole")
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
        run_there(python, "-c", PUT, large, place)
        assert contents(Path(run_there(python, "-c", FETCH, place).strip())) == expected
