"""Sealed model folders: what stages read and write.

An artifact is a folder that is complete by itself (model, config, tokenizer) and is never written
again once it is sealed. Its digest covers the names and contents of all its files, so that two
artifacts with the same digest are the same model, whoever built them.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import stat
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from optimize.errors import SealError, SourceError, first_line

Kind = Literal["torch", "onnx", "openvino"]

MODEL_FILES: dict[Kind, tuple[str, ...]] = {
    "torch": ("*.safetensors", "*.safetensors.index.json"),
    "onnx": ("*.onnx", "*.onnx_data", "*.onnx.data"),
    "openvino": ("openvino_model.xml", "openvino_model.bin"),
}

MOST_LEVELS = 16
"""Of folders within a sealed folder; a model has one or two."""
GZIP = 16
"""What zlib adds to its window size to write gzip's header and trailer."""
CHUNK_BYTES = 2**20


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a safetensors file: its shape, and its data type as the format calls it, such as "F8_E4M3"."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes that the file holds of it."""
        # All types but BOOL name their bits first; what follows an underscore divides them up further.
        bits = re.search(r"\d+", self.dtype)
        return math.prod(self.shape) * (int(bits[0]) if bits else 8) // 8


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


def stored_tensors(path: Path) -> dict[str, StoredTensor]:
    """What a safetensors file says of its tensors, in the order in which they lie there; none of them is read.

    Raises SourceError where the file is not a safetensors file, or shorter or longer than its header says.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            found = {name: file.get_slice(name) for name in file.offset_keys()}
    except (OSError, SafetensorError) as error:
        raise SourceError(
            f"{path}: not a readable safetensors file ({first_line(error)}); copy or download it again"
        ) from error
    return {name: StoredTensor(each.get_dtype(), tuple(each.get_shape())) for name, each in found.items()}


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sealed_files(folder: Path) -> list[Path]:
    """All files below a folder of ours, sorted; the one walk that digests, sizes and copies are made by.

    Raises SealError where there is no such folder, or anything in it is neither a file nor a folder: what a link leads
    to can change without the folder, so no digest speaks of it. So for names that no line of text holds, which a list
    of checksums could not tell from others, and for folders in one another without end.
    """
    if folder.is_symlink() or not folder.is_dir():
        raise SealError(f"{folder}: {_what_is(folder)}, where there has to be a folder of files; run it again")
    return sorted(_files_below(folder, MOST_LEVELS))


def _files_below(folder: Path, levels: int) -> Iterator[Path]:
    if not levels:
        raise SealError(f"{folder}: lies deeper in other folders than any file of a model does; remove it")
    with os.scandir(folder) as entries:
        for entry in entries:
            path = Path(entry.path)
            if not entry.name.isprintable():
                raise SealError(f"{folder}: holds {entry.name!a}, whose name is not one line of text; rename it")
            if entry.is_dir(follow_symlinks=False):
                yield from _files_below(path, levels - 1)
            elif entry.is_file(follow_symlinks=False):
                yield path
            else:
                raise SealError(f"{path}: {_what_is(path)}, where there has to be a file; put the file itself there")


def _what_is(path: Path) -> str:
    """What lies at a path, in words that follow its name."""
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "is missing"
    return "is a link" if stat.S_ISLNK(mode) else "is a file" if stat.S_ISREG(mode) else "is a pipe, socket or device"


def folder_digest(folder: Path) -> str:
    """SHA-256 over the sorted relative names and content digests of all files below a folder of ours."""
    return digest_of(folder, sealed_files(folder))


def content_digest(path: Path) -> str:
    """SHA-256 of what a user's file or folder holds, wherever it lies; files that are links are followed."""
    if not path.is_dir():
        return file_digest(path)
    return digest_of(path, sorted(each for each in path.rglob("*") if each.is_file()))


def digest_of(folder: Path, files: Iterable[Path]) -> str:
    """SHA-256 over the names, relative to a folder, and the content digests of files in it, in the order given."""
    total = hashlib.sha256()
    for path in files:
        total.update(f"{path.relative_to(folder).as_posix()}\0{file_digest(path)}\n".encode())
    return total.hexdigest()


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
    size = sum(path.stat().st_size for path in sealed_files(folder))
    return Artifact(kind=kind, path=folder, digest=folder_digest(folder), size_bytes=size)


def copy_sealed(artifact: Artifact, out: Path) -> None:
    """Copy an artifact into a folder that is new or empty; refuse a copy that is not what was sealed."""
    out.mkdir(parents=True, exist_ok=True)
    for path in sealed_files(artifact.path):
        copied = out / path.relative_to(artifact.path)
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copied, follow_symlinks=False)
    if folder_digest(out) != artifact.digest:
        raise SealError(f"{artifact.path}: is not what was sealed any more; run it again")


def copy_companions(source: Path, kind: Kind, out: Path) -> None:
    """Copy what is not the model (config, tokenizer, a sentence encoder's modules), keeping what `out` has already."""
    models = set(model_files(source, kind))
    for path in sealed_files(source):
        copied = out / path.relative_to(source)
        if path not in models and not copied.exists():
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copied)
