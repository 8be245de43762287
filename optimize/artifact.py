"""Sealed model folders: what stages read and write.

An artifact is a folder that is complete by itself (model, config, tokenizer) and is never written
again once it is sealed. Its digest covers the names and contents of all its files, so that two
artifacts with the same digest are the same model, whoever built them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict

from optimize.errors import SourceError

Kind = Literal["torch", "onnx", "openvino"]

MODEL_FILES: dict[Kind, tuple[str, ...]] = {
    "torch": ("*.safetensors", "*.safetensors.index.json"),
    "onnx": ("*.onnx", "*.onnx_data", "*.onnx.data"),
    "openvino": ("openvino_model.xml", "openvino_model.bin"),
}

GZIP = 16
"""What zlib adds to its window size to write gzip's header and trailer."""
CHUNK_BYTES = 2**20


class Artifact(BaseModel):
    """A sealed model folder: its kind, where it lies, what it is, and how large it is in bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    path: Path
    digest: str
    size_bytes: int

    def model_files(self) -> list[Path]:
        """The files that hold the model itself, without config and tokenizer."""
        return model_files(self.path, self.kind)

    def model_bytes(self) -> int:
        """Bytes of the files that hold the model itself."""
        return sum(file.stat().st_size for file in self.model_files())


def model_files(folder: Path, kind: Kind) -> list[Path]:
    """Files of `folder` that hold a model of `kind`, sorted."""
    return sorted(file for pattern in MODEL_FILES[kind] for file in folder.glob(pattern))


def gzip_bytes(files: Iterable[Path]) -> int:
    """Bytes of files once each is compressed by itself as gzip does by default; nothing is held or written."""
    total = 0
    for file in files:
        packer = zlib.compressobj(wbits=zlib.MAX_WBITS | GZIP)
        with file.open("rb") as stream:
            while chunk := stream.read(CHUNK_BYTES):
                total += len(packer.compress(chunk))
        total += len(packer.flush())
    return total


def read_safetensors_header(path: Path) -> dict[str, dict[str, Any]]:
    """Names of a safetensors file's tensors with their dtype, shape and data_offsets.

    Reads the header alone. Raises SourceError where the file is no safetensors, or is shorter
    than its header says. Format: 8 bytes little-endian length, JSON, then the data.
    """
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= min(path.stat().st_size, 100_000_000):
                raise ValueError("no header")
            header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        end = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise SourceError(f"{path}: not a readable safetensors file; copy or download it again") from error
    if path.stat().st_size < end:
        raise SourceError(f"{path}: truncated at {path.stat().st_size:,} of {end:,} bytes; copy or download it again")
    return cast("dict[str, dict[str, Any]]", header)


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def folder_digest(folder: Path) -> str:
    """SHA-256 over the sorted relative names and content digests of all files below `folder`."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            total.update(f"{path.relative_to(folder).as_posix()}\0{file_digest(path)}\n".encode())
    return total.hexdigest()


def content_digest(path: Path) -> str:
    """SHA-256 of what a file or a folder holds, wherever it lies."""
    return folder_digest(path) if path.is_dir() else file_digest(path)


def tokenizer_digest(folder: Path) -> str:
    """SHA-256 over what says how a model folder's texts become ids; two folders that agree have one tokenizer.

    It does not depend on the file's layout, nor on cutting and padding, which a tokenizer that was used saves along.
    """
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    says = {name: value for name, value in content.items() if name not in ("truncation", "padding")}
    return hashlib.sha256(json.dumps(says, sort_keys=True).encode()).hexdigest()


def seal(folder: Path, kind: Kind) -> Artifact:
    """Describe a finished folder; nobody writes into it afterwards."""
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return Artifact(kind=kind, path=folder, digest=folder_digest(folder), size_bytes=size)


def copy_companions(source: Path, kind: Kind, out: Path) -> None:
    """Copy what is not the model (config, tokenizer) into `out`, keeping what `out` has already."""
    models = set(model_files(source, kind))
    for path in sorted(source.iterdir()):
        if path.is_file() and path not in models and not (out / path.name).exists():
            shutil.copyfile(path, out / path.name)
