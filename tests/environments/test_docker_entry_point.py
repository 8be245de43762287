"""The image's entry point without Docker: its requirements in an environment of their own, and a server that ends well.

Images cannot be built here; what the last layers hold is what this environment holds.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import tarfile
import threading
import time
import urllib.request
from pathlib import Path

import pytest
from environments.made import environment, hadolint
from environments.serving import free_port, wait_until

import optimize
from optimize import manifest
from optimize.publishing.checksums import write_checksums
from optimize.publishing.layouts import LAYOUTS, docker
from optimize.publishing.layouts.served import HANDLERS

pytestmark = [pytest.mark.environments, pytest.mark.timeout(600)]

DOCKERFILE = HANDLERS / docker.DOCKERFILE
TEXT = DOCKERFILE.read_text()
MOST_BYTES = 450 * 10**6
BASE_BYTES = 135 * 10**6
"""Of python:3.11-slim; stated by others, not measured here."""
MODEL_BYTES = 67 * 10**6
"""Of distilbert-base in INT8."""


@pytest.fixture(scope="module")
def publication(exported_run, tmp_path_factory) -> Path:
    """What an image is made of."""
    run = exported_run("text-classification")
    folder = tmp_path_factory.mktemp("docker") / "publication"
    shutil.copytree(run / "model", folder)
    LAYOUTS["docker"].arrange(folder, manifest.read(run))
    shutil.copy(run / manifest.FILE, folder)
    write_checksums(folder)
    return folder


@pytest.fixture(scope="module")
def python(publication) -> Path:
    """The interpreter of what the image installs."""
    return environment("docker-serve", ["-r", str(publication / "docker" / "requirements.txt")])


@pytest.fixture(scope="module")
def source(publication, tmp_path_factory) -> Path:
    """What the image has of this package, and nothing else of this tree."""
    folder = tmp_path_factory.mktemp("source")
    with tarfile.open(publication / "docker" / docker.SOURCE) as archive:
        archive.extractall(folder, filter="data")
    return folder


def entry_point() -> list[str]:
    """The words of ENTRYPOINT and CMD."""
    found = [re.findall(rf"^{name} (\[.*\])$", TEXT, re.MULTILINE)[-1] for name in ("ENTRYPOINT", "CMD")]
    return [word for each in found for word in json.loads(each)]


@pytest.fixture
def server(python, publication, source):
    """The address of the server that the image's words start, and its process."""
    program, *words = [publication if word == "/model" else word for word in entry_point()]
    assert program == "python"
    assert publication in words
    known = {"PATH": os.environ["PATH"], "PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"}
    port = free_port()
    started = subprocess.Popen([python, *words, "--port", str(port)], env=known, cwd=source)
    address = f"http://127.0.0.1:{port}"
    yield address, started
    started.kill()
    started.wait()


def ask(address: str, content: object) -> object:
    request = urllib.request.Request(f"{address}/predict", json.dumps(content).encode())
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


def test_it_answers_without_torch_and_finishes_what_it_answers_when_it_is_told_to_end(python, server, exported_run):
    lacks = "import importlib.util as u; print([n for n in ('torch', 'transformers', 'datasets') if u.find_spec(n)])"
    assert subprocess.run([python, "-c", lacks], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    address, process = server
    wait_until(f"{address}/v2/health/ready", process)
    label = optimize.load(exported_run("text-classification"))("the train is late")[0]["label"]
    assert ask(address, {"inputs": "the train is late"})[0]["label"] == label

    found, many = [], {"inputs": ["the train is late " * 30] * 64}
    caller = threading.Thread(target=lambda: found.append(ask(address, many)))
    caller.start()
    time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    caller.join(60)
    assert (len(found[0]), process.wait(60)) == (64, 0)


def test_what_it_installs_fits_into_the_image(python, publication):
    home, added = python.parent.parent, publication / "docker"
    files = [path for path in home.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    with tarfile.open(added / docker.SOURCE) as archive:
        package = sum(each.size for each in archive)
    own = package + sum(path.stat().st_size for path in added.iterdir())
    assert BASE_BYTES + MODEL_BYTES + own + sum(path.lstat().st_size for path in files) <= MOST_BYTES


def test_hadolint_has_nothing_to_say_of_the_dockerfile_and_would_say_it(tmp_path):
    program = hadolint().parent / "hadolint"
    (tmp_path / "Dockerfile").write_text(TEXT.replace("USER 10001", "USER root"))

    done, worse = (
        subprocess.run([program, each], capture_output=True, text=True, check=False)
        for each in (DOCKERFILE, tmp_path / "Dockerfile")
    )

    assert (done.returncode, done.stdout) == (0, "")
    assert "DL3002" in worse.stdout


def test_the_image_is_run_by_nobody_in_particular_and_says_whether_it_is_well():
    assert re.search(r"^USER [1-9]\d*$", TEXT, re.MULTILINE)
    assert "HEALTHCHECK" in TEXT
    assert "/v2/health/ready" in TEXT
    assert shlex.split(re.findall(r"^#   docker run (.*)$", TEXT, re.MULTILINE)[0])[0] == "--read-only"
