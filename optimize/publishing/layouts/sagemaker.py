"""For Amazon SageMaker: `model.tar.gz` with the model and, in `code/`, what its inference toolkit calls.

The archive is the same, bit by bit, for the same model: no times, owners or names of this machine are in it.
"""

from __future__ import annotations

import gzip
import json
import shutil
import tarfile
from pathlib import Path

from optimize.artifact import sealed_files
from optimize.manifest import Manifest
from optimize.publishing.layouts.layout import Layout, model_name, move_into, refuse_fixed
from optimize.publishing.layouts.served import example_of, write_handler, write_requirements, write_settings
from optimize.report.markdown import code_block

FOLDER, ARCHIVE, CODE = "sagemaker", "model.tar.gz", "code"
COMPRESSION = 6


def arrange(folder: Path, record: Manifest) -> str:
    """Pack the model and its code into `sagemaker/model.tar.gz`."""
    inner, root, name = move_into(folder, ".model"), folder / FOLDER, model_name(record)
    write_settings(inner, record)
    write_handler(inner / CODE, "sagemaker_inference_code.py>inference.py")
    write_requirements(inner / CODE / "requirements.txt", record)
    root.mkdir()
    pack(inner, root / ARCHIVE)
    shutil.rmtree(inner)
    body = json.dumps({"inputs": example_of(record)})
    lines = [
        f"aws s3 cp PATH/sagemaker/{ARCHIVE} s3://BUCKET/{name}/",
        f"aws sagemaker-runtime invoke-endpoint --endpoint-name {name} --content-type application/json "
        f"--cli-binary-format raw-in-base64-out --body '{body}' /dev/stdout",
    ]
    text = (
        f"`{FOLDER}/{ARCHIVE}` is what a SageMaker model takes as its data, in any of AWS's PyTorch containers for "
        "inference; `code/requirements.txt` in it is installed when the endpoint starts.\n\n"
        + code_block("\n".join(lines), "sh")
    )
    (root / "README.md").write_text(f"# {name}, for SageMaker\n\n{text}\n", encoding="utf-8")
    return text


def pack(folder: Path, path: Path, *, below: str = "", leave_out: str = "") -> None:
    """Write the files of a folder as a `.tar.gz` that depends on nothing but them.

    Their names begin with `below` there; folders that are called `leave_out` are not packed.
    """
    with (
        path.open("wb") as stream,
        gzip.GzipFile(fileobj=stream, mode="wb", compresslevel=COMPRESSION, mtime=0, filename="") as packer,
        tarfile.open(fileobj=packer, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for file in sealed_files(folder):
            name = file.relative_to(folder)
            if leave_out in name.parts:
                continue
            entry = tarfile.TarInfo((below / name).as_posix())
            entry.size, entry.mode = file.stat().st_size, 0o644
            with file.open("rb") as content:
                archive.addfile(entry, content)


LAYOUT = Layout(arrange=arrange, summary="For Amazon SageMaker: model.tar.gz with its code", refuses=refuse_fixed)
