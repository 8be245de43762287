"""Artifacts: one digest for one content, and headers read without trusting them."""

import json
import os
import struct

import numpy as np
import pytest
from pydantic import ValidationError
from safetensors.numpy import save_file

from optimize.artifact import (
    Artifact,
    content_digest,
    copy_companions,
    copy_sealed,
    folder_digest,
    model_files,
    seal,
    stored_tensors,
)
from optimize.errors import SealError, SourceError


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "model"
    (made / "onnx").mkdir(parents=True)
    (made / "model.onnx").write_bytes(b"weights")
    (made / "config.json").write_text("{}")
    (made / "onnx" / "notes.txt").write_text("below")
    return made


def rename(folder):
    (folder / "model.onnx").rename(folder / "other.onnx")


def change(folder):
    (folder / "model.onnx").write_bytes(b"weighty")


def add(folder):
    (folder / "empty.txt").touch()


def move_below(folder):
    (folder / "config.json").rename(folder / "onnx" / "config.json")


def swap(folder):
    (folder / "model.onnx").write_text("{}")
    (folder / "config.json").write_bytes(b"weights")


def change_below(folder):
    (folder / "onnx" / "notes.txt").write_text("above")


@pytest.mark.parametrize("edit", [rename, change, add, move_below, swap, change_below])
def test_the_digest_changes_with_any_name_and_any_content(edit, folder):
    before = folder_digest(folder)
    edit(folder)
    assert folder_digest(folder) != before


def test_the_digest_is_that_of_the_content_wherever_it_lies(folder, tmp_path):
    before = seal(folder, "onnx")
    moved = seal(folder.rename(tmp_path / "elsewhere"), "onnx")
    assert (moved.digest, moved.size_bytes) == (before.digest, before.size_bytes)
    assert moved.path == tmp_path / "elsewhere"


def test_sizes_count_every_file_and_the_models_alone(folder):
    artifact = seal(folder, "onnx")
    assert artifact.size_bytes == len(b"weights") + len("{}") + len("below")
    assert artifact.model_bytes() == len(b"weights")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("torch", ["model-1-of-2.safetensors", "model-2-of-2.safetensors", "model.safetensors.index.json"]),
        ("onnx", ["model.onnx", "model.onnx.data", "model.onnx_data"]),
        ("openvino", ["openvino_model.bin", "openvino_model.xml"]),
    ],
)
def test_each_kind_has_its_own_model_files(kind, expected, tmp_path):
    models = "model-1-of-2.safetensors model-2-of-2.safetensors model.safetensors.index.json model.onnx model.onnx.data"
    for name in [
        *models.split(),
        "model.onnx_data",
        "openvino_model.xml",
        "openvino_model.bin",
        "openvino_tokenizer.xml",
        "config.json",
        "vocab.txt",
    ]:
        (tmp_path / name).touch()
    assert [path.name for path in model_files(tmp_path, kind)] == expected


def test_companions_are_copied_and_neither_the_model_nor_what_is_there(folder, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (folder / "vocab.txt").write_text("theirs")
    (out / "config.json").write_text("ours")
    copy_companions(folder, "onnx", out)
    copied = {path.relative_to(out).as_posix(): path.read_text() for path in out.rglob("*") if path.is_file()}
    assert {name: copied[name] for name in ("config.json", "vocab.txt")} == {
        "config.json": "ours",
        "vocab.txt": "theirs",
    }
    assert set(copied) == {"config.json", "vocab.txt", "onnx/notes.txt"}


@pytest.mark.parametrize("values", [{"kind": "tflite"}, {"more": 1}, {"size_bytes": "many"}])
def test_an_artifact_is_closed_and_typed(values, tmp_path):
    right = {"kind": "onnx", "path": tmp_path, "digest": "abc", "size_bytes": 1}
    assert Artifact.model_validate(right).kind == "onnx"
    with pytest.raises(ValidationError):
        Artifact.model_validate({**right, **values})


def test_an_artifact_cannot_be_changed(folder):
    with pytest.raises(ValidationError, match="frozen"):
        seal(folder, "onnx").digest = "other"


def test_a_header_gives_names_types_shapes_and_sizes_and_no_metadata(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"a": np.zeros((2, 3), np.float32), "b": np.zeros(4, np.float16)}, path, metadata={"format": "pt"})
    found = stored_tensors(path)
    assert {name: (each.dtype, each.shape, each.size_bytes) for name, each in found.items()} == {
        "a": ("F32", (2, 3), 24),
        "b": ("F16", (4,), 8),
    }


@pytest.mark.parametrize(
    ("dtype", "size"),
    [("BOOL", 1), ("I8", 1), ("F8_E5M2", 1), ("F8_E4M3", 1), ("BF16", 2), ("F64", 8), ("C64", 8)],
)
def test_the_bytes_of_a_tensor_are_those_that_its_header_states(dtype, size, tmp_path):
    path = tmp_path / "model.safetensors"
    header = {"a": {"dtype": dtype, "shape": [3, 5], "data_offsets": [0, 15 * size]}}
    path.write_bytes(framed(json.dumps(header).encode()) + bytes(15 * size))
    assert stored_tensors(path)["a"].size_bytes == 15 * size


def framed(content):
    return struct.pack("<Q", len(content)) + content


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x01",
        struct.pack("<Q", 2**62) + b"{}",
        framed(b"not JSON at all"),
        framed(b"[1, 2]"),
        framed(b'{"a": {"dtype": "F32"}}'),
        framed(b'{"a": 7}'),
        framed(b"\xff\xfe\xff\xfe"),
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 267954768\n",
    ],
)
def test_what_is_no_safetensors_is_refused_in_one_line(content, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(SourceError) as refusal:
        stored_tensors(path)
    message = str(refusal.value)
    assert message.startswith(f"{path}: not a readable safetensors file (")
    assert message.endswith("); copy or download it again")
    assert "\n" not in message


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(SourceError, match="not a readable safetensors file"):
        stored_tensors(tmp_path / "absent.safetensors")


@pytest.mark.parametrize("data", [b"1234", bytes(20)], ids=["early", "late"])
def test_a_file_that_ends_elsewhere_than_its_header_says_is_refused(data, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(framed(json.dumps({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()) + data)
    with pytest.raises(SourceError, match=r"not fully covered\); copy or download it again"):
        stored_tensors(path)


@pytest.mark.parametrize("to", ["model.onnx", "onnx", "nowhere", "/etc", "more"])
@pytest.mark.parametrize("place", ["more", "onnx/more"])
def test_a_folder_with_a_link_has_no_digest_and_is_not_copied(place, to, folder, tmp_path):
    artifact = seal(folder, "onnx")
    (folder / place).symlink_to(to)

    with pytest.raises(SealError, match=f"{place}: is a link"):
        folder_digest(folder)
    with pytest.raises(SealError, match=f"{place}: is a link"):
        copy_sealed(artifact, tmp_path / "copy")


def test_a_pipe_has_no_digest(folder):
    os.mkfifo(folder / "onnx" / "pipe")

    with pytest.raises(SealError, match="onnx/pipe: is a pipe"):
        seal(folder, "onnx")


def test_a_copy_has_all_that_was_sealed(folder, tmp_path):
    artifact = seal(folder, "onnx")

    copy_sealed(artifact, tmp_path / "deep" / "copy")

    assert seal(tmp_path / "deep" / "copy", "onnx").digest == artifact.digest


def test_what_changed_after_it_was_sealed_is_not_copied(folder, tmp_path):
    artifact = seal(folder, "onnx")
    (folder / "config.json").write_text("{ }")

    with pytest.raises(SealError, match="is not what was sealed any more"):
        copy_sealed(artifact, tmp_path / "copy")


def test_what_users_keep_may_be_links(folder, tmp_path):
    """The Hub's snapshots are folders of links to files."""
    links = tmp_path / "links"
    links.mkdir()
    for name in ("model.onnx", "config.json"):
        (links / name).symlink_to(folder / name)
    before = content_digest(links)
    (folder / "config.json").write_text("{ }")

    assert content_digest(links) != before
