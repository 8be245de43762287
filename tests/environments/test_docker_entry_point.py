"""The image's entry point without Docker: its requirements in an environment of their own, and a server that ends well.

Images cannot be built here; what the last layers hold is what this environment holds.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import threading
import time
import urllib.request
from pathlib import Path

import pytest
from environments.made import ROOT, environment

import optimize

pytestmark = [pytest.mark.environments, pytest.mark.timeout(600)]

DOCKER = ROOT / "docs" / "examples" / "docker"
MOST_BYTES = 450 * 10**6
BASE_BYTES = 135 * 10**6
"""Of python:3.11-slim; stated by others, not measured here."""
WRITABLE = frozenset({"__pycache__"})


@pytest.fixture(scope="module")
def python() -> Path:
    """The interpreter of what the image installs."""
    asked = ["-c", str(ROOT / "constraints.txt"), "-r", str(DOCKER / "requirements.txt")]
    return environment("docker-serve", asked)


def entry_point() -> list[str]:
    """The words of ENTRYPOINT and CMD."""
    text = (DOCKER / "Dockerfile").read_text()
    found = [re.findall(rf"^{name} (\[.*\])$", text, re.MULTILINE)[-1] for name in ("ENTRYPOINT", "CMD")]
    return [word for each in found for word in json.loads(each)]


@pytest.fixture
def server(python, exported_run):
    command, folder, host, *rest = entry_point()[1:]
    words = ["-m", "optimize", command, exported_run("text-classification"), host, *rest, "--port", "0"]
    known = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    assert (entry_point()[0], folder) == ("optimize", "/model")
    started = subprocess.Popen([python, *words], env=known, stderr=subprocess.PIPE, text=True)
    yield started
    started.kill()
    started.wait()
    started.stderr.close()


def address_of(server: subprocess.Popen[str]) -> str:
    """Where it says that it listens."""
    for line in server.stderr:
        if found := re.search(r"http://[0-9.]+:(\d+)", line):
            return f"http://127.0.0.1:{found[1]}"
    raise AssertionError("it ended before it listened")


def ask(address: str, content: object) -> object:
    request = urllib.request.Request(f"{address}/predict", json.dumps(content).encode())
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


def test_it_answers_without_torch_and_finishes_what_it_answers_when_it_is_told_to_end(python, server, exported_run):
    lacks = "import importlib.util as u; print([n for n in ('torch', 'transformers', 'datasets') if u.find_spec(n)])"
    assert subprocess.run([python, "-c", lacks], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    address, found = address_of(server), []
    deadline = time.monotonic() + 60
    while not found and time.monotonic() < deadline:
        try:
            found.append(ask(address, {"inputs": "the train is late"}))
        except ConnectionError:
            time.sleep(0.1)
    label = optimize.load(exported_run("text-classification"))("the train is late")[0]["label"]
    assert found[0][0]["label"] == label

    many = {"inputs": ["the train is late " * 30] * 64}
    caller = threading.Thread(target=lambda: found.append(ask(address, many)))
    caller.start()
    time.sleep(0.05)
    server.send_signal(signal.SIGTERM)
    caller.join(60)
    assert (len(found[1]), server.wait(60)) == (64, 0)


def test_what_it_installs_fits_into_the_image(python):
    home = python.parent.parent
    files = [path for path in home.rglob("*") if path.is_file() and not WRITABLE & set(path.parts)]
    package = sum(path.stat().st_size for path in (ROOT / "optimize").rglob("*.py"))
    assert BASE_BYTES + package + sum(path.lstat().st_size for path in files) <= MOST_BYTES


def test_the_image_is_run_by_nobody_in_particular_and_says_whether_it_is_well():
    text = (DOCKER / "Dockerfile").read_text()
    assert re.search(r"^USER [1-9]\d*$", text, re.MULTILINE)
    assert "HEALTHCHECK" in text
    assert "/v2/health/ready" in text
    assert shlex.split(re.findall(r"^#   docker run (.*)$", text, re.MULTILINE)[0])[0] == "--read-only"
