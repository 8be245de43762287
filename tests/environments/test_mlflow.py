"""A run in a real MLflow: its server with a store of SQLite, asked over HTTP what it has."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from environments.made import mlflow_client, mlflow_server, run_there
from environments.serving import free_port, serving
from report.conftest import make_manifest

from optimize import manifest
from optimize.machine.privacy import SWITCHES
from optimize.tracking.record import tracked

pytestmark = [pytest.mark.environments, pytest.mark.timeout(1800)]  # environments are installed
DELIVER = """
import sys
from pathlib import Path
from optimize import manifest
from optimize.delivering import deliver
from optimize.errors import UnavailableError

folder = Path(sys.argv[1])
try:
    print(deliver([(folder, manifest.read(folder))], junit=None, track=sys.argv[2]))
except UnavailableError as error:
    sys.exit(f"{error.exit_code} {error}")
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of a server of its own, whose processes end with the test."""
    address, home = f"http://127.0.0.1:{(port := free_port())}", tmp_path / "server"
    home.mkdir()
    command = [mlflow_server(), "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{home}/store.db", "--artifacts-destination", str(home / "artifacts")]
    with serving(command, home / "log", f"{address}/health", SWITCHES, home):
        yield address


def ask(server: str, what: str, **words: Any) -> Any:
    body = json.dumps(words).encode() if words else None
    request = urllib.request.Request(f"{server}/api/2.0/mlflow/{what}", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    run = tmp_path / "20260102-cpu"
    (run / "model").mkdir(parents=True)
    (run / "model" / "model.onnx").write_bytes(b"graph")
    (run / "report.md").write_text("# Report", encoding="utf-8")
    manifest.write(make_manifest(), run)
    return run


def test_a_run_is_in_mlflow_with_its_numbers_and_files(server, folder):
    said = run_there(mlflow_client(), "-c", DELIVER, folder, f"mlflow:{server}")

    assert len(said.splitlines()) == 1, "MLflow prints nothing of its own"
    experiment = ask(server, "experiments/get-by-name?experiment_name=distilbert-optimize")["experiment"]
    (run,) = ask(server, "runs/search", experiment_ids=[experiment["experiment_id"]])["runs"]
    assert run["info"]["run_id"] in said
    assert (run["info"]["run_name"], run["info"]["status"]) == (folder.name, "FINISHED")
    metrics = {each["key"]: each["value"] for each in run["data"]["metrics"]}
    assert (metrics["pytorch-fp32/accuracy"], metrics["quantize_dynamic/accuracy"], metrics["accuracy"]) == (
        0.9,
        0.895,
        0.895,
    )
    assert metrics["speedup/1x128/pytorch-fp32"] == 3.0
    params = {each["key"]: each["value"] for each in run["data"]["params"]}
    assert (params["pipeline"], params["export.opset"], params["gates.min_speedup"]) == ("cpu", "17", "1.5")
    tags = {each["key"]: each["value"] for each in run["data"]["tags"]}
    assert (tags["verdict"], tags["limit.min_speedup"], tags["run"]) == ("passed", "passed", "deadbeef")
    assert tags["mlflow.note.content"] == tracked(folder, make_manifest()).description
    files = ask(server, f"artifacts/list?run_id={run['info']['run_id']}")["files"]
    assert {each["path"] for each in files} == {"manifest.json", "model", "report.md"}


def test_a_server_that_is_gone_loses_no_run(folder):
    before = sorted(folder.rglob("*"))

    python, address = mlflow_client(), f"http://user:secret@127.0.0.1:{free_port()}"
    own = {"PYTHONPATH": str(Path(manifest.__file__).parents[1]), "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    done = subprocess.run(
        [python, "-c", DELIVER, folder, f"mlflow:{address}"],
        env={**os.environ, **own},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip

    assert done.stderr.startswith("3 tracker mlflow: ")
    assert f"the run is kept in {folder}" in done.stderr
    assert "secret" not in done.stderr
    assert sorted(folder.rglob("*")) == before
