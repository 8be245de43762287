"""For Docker: the publication as it is, and beside it what makes an image of `optimize serve` that has it.

The image has neither PyTorch nor transformers, but this package's source as it is here, and what serving needs of other
packages at the versions that are installed here. Nothing in it is written while it runs.
"""

from __future__ import annotations

import json
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from optimize.manifest import Manifest
from optimize.publishing.layouts.layout import Layout, model_name
from optimize.publishing.layouts.sagemaker import pack
from optimize.publishing.layouts.served import HANDLERS, REQUIREMENTS, example_of
from optimize.publishing.names import IMAGE
from optimize.report.markdown import code_block

DOCKERFILE, IGNORED, SOURCE = "Dockerfile", "Dockerfile.dockerignore", "optimize.tar.gz"
PACKAGE = HANDLERS.parents[2]
ENGINE = "onnxruntime"
NEEDS = (
    "httptools",
    "markupsafe",
    "numpy",
    "onnx",
    ENGINE,
    "platformdirs",
    "prometheus-client",
    "pydantic",
    "pyyaml",
    "starlette",
    "tokenizers",
    "typer",
    "uvicorn",
    "uvloop",
    "zstandard",
)
"""What `optimize serve` imports on a CPU."""


def arrange(folder: Path, record: Manifest) -> str:
    """Leave the model's files where they are, and write `docker/`."""
    root, name = folder / IMAGE, model_name(record)
    root.mkdir()
    shutil.copyfile(HANDLERS / DOCKERFILE, root / DOCKERFILE)
    # All that SHA256SUMS names has to be in the image, where it is checked.
    (root / IGNORED).write_text(".git\n", encoding="utf-8")
    pins = {each: version(each) for each in NEEDS} | _judged(record)
    (root / REQUIREMENTS).write_text("".join(f"{each}=={pin}\n" for each, pin in pins.items()), encoding="utf-8")
    pack(PACKAGE, root / SOURCE, below=PACKAGE.name, leave_out="__pycache__")
    lines = [
        f"docker build -f PATH/{IMAGE}/{DOCKERFILE} -t {name} PATH",
        f"docker run --read-only --tmpfs /tmp -p 8080:8080 {name}",
        f"curl localhost:8080/predict -d '{json.dumps({'inputs': example_of(record)})}'",
    ]
    text = (
        f"`{IMAGE}/` makes an image of `optimize serve` with this model. It runs as a user without rights on a file "
        f"system that is only read, and says whether it is well.\n\n{code_block(chr(10).join(lines), 'sh')}"
    )
    (root / "README.md").write_text(f"# {name}, for Docker\n\n{text}\n", encoding="utf-8")
    return text


def _judged(record: Manifest) -> dict[str, str]:
    """The engine's version that the model was judged with."""
    found = record.environment.versions.get(ENGINE)
    return {ENGINE: found} if found else {}


def refuses(record: Manifest) -> str | None:
    """What an image for CPUs cannot run, and what is not installed here, so that no version of it is known to serve."""
    if record.request.target != "cpu":
        return f"makes images for CPUs, and the run is of target {record.request.target}; run one of target cpu"
    try:
        for each in NEEDS:
            version(each)
    except PackageNotFoundError as error:
        return f"takes the versions that serve here, and {error.name} is not installed; add 'serve' and 'publish'"
    return None


LAYOUT = Layout(
    arrange=arrange,
    summary="For Docker: an image of `optimize serve` with the model",
    kinds=("onnx",),
    refuses=refuses,
    moves=False,
)
