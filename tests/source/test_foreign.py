"""Checkpoints of TensorFlow and of Flax: what they hold is what the PyTorch checkpoint with the same weights holds."""

from __future__ import annotations

import functools
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import foreign
import h5py
import msgpack
import numpy as np
import pytest
from doubles import Silent
from safetensors.numpy import load_file, save_file

from optimize import cache
from optimize.errors import SourceError
from optimize.heads import HEADS
from optimize.source.acquire import acquire_checkpoint
from optimize.source.finding import inspect_checkpoint
from optimize.source.foreign import sines

HEAD = "text-classification"
KERNEL, BIAS = "classifier/kernel", "classifier/bias"
QUERY = f"distilbert/{foreign.KERAS_CLASS}/distilbert/transformer/layer_._0/attention/q_lin/kernel:0"


@pytest.fixture
def acquire(tmp_path: Path, silent: Any) -> Callable[..., cache.Entry]:
    def act(folder: Path, head: str | None = None) -> cache.Entry:
        found, chosen = inspect_checkpoint(str(folder), None, head)
        return acquire_checkpoint(found, chosen, root=tmp_path / "cache", seed=0, progress=silent)

    return act


@pytest.fixture(scope="module")
def in_pytorch(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The digest of the artifact that a head's small checkpoint becomes."""

    @functools.cache
    def digest(head: str) -> str:
        found, chosen = inspect_checkpoint(str(checkpoint(head)))
        root = tmp_path_factory.mktemp("in-pytorch")
        return acquire_checkpoint(found, chosen, root=root, seed=0, progress=Silent()).artifact.digest

    return digest


@pytest.fixture
def saved(checkpoint: Callable[[str], Path], tmp_path: Path) -> Callable[..., Path]:
    """The small checkpoint with its weights saved in another way."""

    def make(save: Callable[[foreign.Arrays, Path], None], head: str = HEAD) -> Path:
        folder = tmp_path / "model"
        shutil.copytree(checkpoint(head), folder)
        weights = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        save(weights, folder)
        return folder

    return make


def save_keras_safetensors(weights: foreign.Arrays, folder: Path) -> None:
    contiguous = {name: np.ascontiguousarray(array) for name, array in foreign.keras_names(weights).items()}
    save_file(contiguous, folder / "model.safetensors", metadata={"format": "tf"})


def save_flax_safetensors(weights: foreign.Arrays, folder: Path) -> None:
    dotted = {name.replace("/", "."): np.ascontiguousarray(each) for name, each in foreign.flax_names(weights).items()}
    save_file(dotted, folder / "model.safetensors", metadata={"format": "flax"})


PLAIN = {"h5": (foreign.save_tensorflow, "TensorFlow"), "msgpack": (foreign.save_flax, "Flax")}
LAYOUTS = {
    "h5 shards": (foreign.save_tensorflow_shards, "TensorFlow"),
    "tf safetensors": (save_keras_safetensors, "TensorFlow"),
    "msgpack shards": (foreign.save_flax_shards, "Flax"),
    "msgpack in pieces": (lambda *each: foreign.save_flax(*each, pack=foreign.in_pieces), "Flax"),
    "flax safetensors": (save_flax_safetensors, "Flax"),
}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(("save", "library"), PLAIN.values(), ids=PLAIN)
def test_each_head_is_the_same_artifact_as_in_pytorch(acquire, in_pytorch, saved, head, save, library) -> None:
    entry = acquire(saved(save, head))

    assert entry.artifact.digest == in_pytorch(head)
    assert entry.facts["stored_as"] == f"float32, {library}"


@pytest.mark.parametrize(("save", "library"), LAYOUTS.values(), ids=LAYOUTS)
def test_each_layout_is_the_same_artifact(acquire, in_pytorch, saved, save, library) -> None:
    entry = acquire(saved(save))

    assert entry.artifact.digest == in_pytorch(HEAD)
    assert entry.facts["stored_as"] == f"float32, {library}"


@pytest.mark.parametrize("kept", ["float16", "float64", ">f4"])
def test_other_floating_point_numbers_are_raised_to_fp32(acquire, saved, kept: str) -> None:
    folder = saved(lambda weights, folder: foreign.save_tensorflow(cast(weights, kept), folder))

    entry = acquire(folder)

    assert entry.facts["stored_as"] == f"{np.dtype(kept).name}, TensorFlow"
    with h5py.File(folder / "tf_model.h5") as file:
        np.testing.assert_array_equal(weights_of(entry)[HEAD_WEIGHT], file[KERAS_HEAD][()].astype(np.float32).T)


HEAD_WEIGHT, KERAS_HEAD = "classifier.weight", f"classifier/{foreign.KERAS_CLASS}/classifier/kernel:0"


def cast(weights: foreign.Arrays, dtype: str) -> foreign.Arrays:
    return {name: weight.astype(dtype) for name, weight in weights.items()}


def weights_of(entry: cache.Entry) -> foreign.Arrays:
    return load_file(entry.artifact.path / "model.safetensors")


def test_bfloat16_of_flax_keeps_its_values(acquire, checkpoint, saved) -> None:
    def upper_half(array: np.ndarray[Any, Any]) -> msgpack.ExtType:
        bits = np.ascontiguousarray(array).view(np.uint32)
        return foreign.packed((bits >> 16).astype(np.uint16), "bfloat16")

    entry = acquire(saved(lambda *each: foreign.save_flax(*each, pack=upper_half)))

    bits = load_file(checkpoint(HEAD) / "model.safetensors")[HEAD_WEIGHT].view(np.uint32) >> 16 << 16
    np.testing.assert_array_equal(weights_of(entry)[HEAD_WEIGHT], bits.view(np.float32))
    assert entry.facts["stored_as"] == "bfloat16, Flax"


def test_weights_of_pytorch_go_first(acquire, checkpoint, saved) -> None:
    folder = saved(lambda weights, folder: foreign.save_tensorflow(cast(weights, "float16"), folder))
    shutil.copy(checkpoint(HEAD) / "model.safetensors", folder)

    assert acquire(folder).facts["stored_as"] == "float32"


def test_a_projection_is_the_embedding_even_where_the_config_says_otherwise(acquire, saved) -> None:
    folder = saved(foreign.save_tensorflow, "fill-mask")
    configure(folder, tie_word_embeddings=False)

    weights = weights_of(acquire(folder))

    embedding = weights["distilbert.embeddings.word_embeddings.weight"]
    np.testing.assert_array_equal(weights["vocab_projector.weight"], embedding)


def configure(folder: Path, **values: object) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | values), encoding="utf-8")


def without(name: str) -> Callable[[foreign.Arrays, Path], None]:
    """Flax's file without the weights of a module."""

    def save(weights: foreign.Arrays, folder: Path) -> None:
        foreign.save_flax({each: weight for each, weight in weights.items() if name not in each}, folder)

    return save


def test_sines_that_flax_does_not_store_are_made(acquire, saved) -> None:
    folder = saved(without("position_embeddings"))
    configure(folder, sinusoidal_pos_embds=True)
    positions = json.loads((folder / "config.json").read_text(encoding="utf-8"))["max_position_embeddings"]

    weights = weights_of(acquire(folder))

    found = weights["distilbert.embeddings.position_embeddings.weight"]
    np.testing.assert_array_equal(found, sines(positions, found.shape[1]))


def test_the_sines_are_those_of_pytorchs_distilbert() -> None:
    import torch
    from transformers.models.distilbert.modeling_distilbert import create_sinusoidal_embeddings

    table = torch.empty(16, 8)
    create_sinusoidal_embeddings(16, 8, table)

    np.testing.assert_allclose(sines(16, 8), table.numpy(), atol=1e-7)


def edit_h5(edit: Callable[[h5py.File], object]) -> Callable[[foreign.Arrays, Path], None]:
    def save(weights: foreign.Arrays, folder: Path) -> None:
        foreign.save_tensorflow(weights, folder)
        with h5py.File(folder / "tf_model.h5", "a") as file:
            edit(file)

    return save


def put(name: str, data: object) -> Callable[[foreign.Arrays, Path], None]:
    """In place of what TensorFlow has there, if anything."""

    def edit(file: h5py.File) -> None:
        if name in file:
            del file[name]
        file[name] = data

    return edit_h5(edit)


def outside(kind: str) -> Callable[[foreign.Arrays, Path], None]:
    """A weight that lies in a file beside the folder."""

    def save(weights: foreign.Arrays, folder: Path) -> None:
        foreign.save_tensorflow(weights, folder)
        other = folder.parent / "other.h5"
        foreign.write_h5(other, {"x": np.ones((64, 64), dtype=np.float32)})
        with h5py.File(folder / "tf_model.h5", "a") as file:
            del file[QUERY]
            if kind == "link":
                file[QUERY] = h5py.ExternalLink(other, "x")
            elif kind == "virtual":
                layout = h5py.VirtualLayout((64, 64), "f4")
                layout[:] = h5py.VirtualSource(other, "x", (64, 64))
                file.create_virtual_dataset(QUERY, layout)
            else:
                file.create_dataset(QUERY, (64, 64), "f4", external=[(str(other), 2048, 64 * 64 * 4)])

    return save


def cut(file: str, least: int) -> Callable[[foreign.Arrays, Path], None]:
    def save(weights: foreign.Arrays, folder: Path) -> None:
        (foreign.save_tensorflow if file.endswith("h5") else foreign.save_flax)(weights, folder)
        path = folder / file
        path.write_bytes(path.read_bytes()[:least])

    return save


def write(file: str, content: bytes) -> Callable[[foreign.Arrays, Path], None]:
    return lambda weights, folder: (folder / file).write_bytes(content)


def leaf(name: str, value: object) -> Callable[[foreign.Arrays, Path], None]:
    """Flax's file with another leaf."""

    def save(weights: foreign.Arrays, folder: Path) -> None:
        leaves = {each: foreign.packed(array) for each, array in foreign.flax_names(weights).items()}
        foreign.write_msgpack(folder / "flax_model.msgpack", {**leaves, name: value})

    return save


def hold_itself(file: h5py.File) -> None:
    file["a"] = file["/"]


SMALL = np.ones((2, 64), dtype=np.float32)
H5, PACK = "tf_model.h5", "flax_model.msgpack"
REFUSED: dict[str, tuple[Callable[[foreign.Arrays, Path], object], str]] = {
    "no HDF5": (write(H5, b"version https://git-lfs"), f"{H5}: cannot be read"),
    "an empty h5": (write(H5, b""), f"{H5}: cannot be read"),
    "a truncated h5": (cut(H5, -5000), f"{H5}: cannot be read"),
    "an h5 without weights": (edit_h5(lambda file: file.clear()), "pre_classifier.weight is missing"),
    "an external link": (outside("link"), f"{QUERY[:60]}"),
    "a virtual data set": (outside("virtual"), "lies in another file"),
    "an external data set": (outside("external"), "lies in another file"),
    "a soft link": (put(QUERY, h5py.SoftLink("/classifier")), "is a link"),
    "a group in itself": (edit_h5(hold_itself), "has another name too"),
    "objects": (put(QUERY, ["text"]), "holds object, not floating-point numbers"),
    "whole numbers": (put(QUERY, np.ones((64, 64), dtype=np.int32)), "holds int32, not floating-point numbers"),
    "nothing": (put(QUERY, h5py.Empty("f4")), "not floating-point numbers"),
    "a data type": (put(QUERY, np.dtype("f4")), "holds no numbers"),
    "a weight that is none": (put("adam/m:0", SMALL), "adam/m:0 is no weight of a DistilBERT"),
    "a weight twice": (put("other/classifier/kernel:0", SMALL.T), "holds classifier.weight twice"),
    "an axis too many": (put(QUERY, SMALL[None]), "has the shape [1, 2, 64]"),
    "another shape": (put(QUERY, SMALL), "q_lin.weight has not the shape"),
    "NaN": (put(KERAS_HEAD, np.full((128, 2), np.nan, dtype=np.float32)), "classifier.weight holds NaN"),
    "compressed": (
        edit_h5(lambda file: file.create_dataset("x", data=SMALL, compression="gzip")),
        "x is compressed",
    ),
    "never written": (
        edit_h5(lambda file: file.create_dataset("x", (2**30, 2**30), "f4", chunks=(1, 1024))),
        "bytes of its shape",
    ),
    "a missing weight": (without("layer.1.ffn.lin2"), "distilbert.transformer.layer.1.ffn.lin2.bias"),
    "a missing head": (without("pre_classifier"), "pre_classifier.weight is missing"),
    "no MessagePack": (write(PACK, b"\xc1"), f"{PACK}: cannot be read"),
    "an empty msgpack": (write(PACK, b""), f"{PACK}: cannot be read"),
    "a truncated msgpack": (cut(PACK, -100), f"{PACK}: cannot be read"),
    "a number": (write(PACK, msgpack.packb(1)), "is no map of arrays"),
    "a map of numbers": (leaf("params/x", 1), "'params/x' is no array"),
    "deep nesting": (write(PACK, b"\x81\xa1a" * 100_000 + b"\xc0"), f"{PACK}: cannot be read"),
    "deep lists": (write(PACK, b"\x91" * 100_000 + b"\xc0"), f"{PACK}: cannot be read"),
    "a giant list": (write(PACK, b"\xdd" + struct.pack(">I", 2**32 - 1)), f"{PACK}: cannot be read"),
    "a giant map": (write(PACK, b"\xdf" + struct.pack(">I", 2**32 - 1)), f"{PACK}: cannot be read"),
    "giant bytes": (write(PACK, b"\x81\xa1a\xc6" + struct.pack(">I", 2**32 - 1)), f"{PACK}: cannot be read"),
    "another extension": (leaf(KERNEL, foreign.packed(SMALL, code=3)), "extension of type 3 is no array"),
    "a type of whole numbers": (leaf(KERNEL, foreign.packed(SMALL, "int32")), "no floating-point numbers"),
    "a shape too large": (leaf(KERNEL, foreign.packed(SMALL, shape=(2**40, 2**40))), "have not the shape"),
    "a shape of words": (leaf(KERNEL, foreign.packed(SMALL, shape=("a",))), "is no shape"),
    "a broken array": (leaf(KERNEL, msgpack.ExtType(1, b"\x93")), f"{PACK}: cannot be read"),
    "an array of two words": (leaf(KERNEL, msgpack.ExtType(1, msgpack.packb([1, 2]))), "shape, type and bytes"),
    "pieces that are none": (leaf(KERNEL, {"__msgpack_chunked_array__": True}), "pieces are not numbered"),
    "pieces of words": (
        leaf(KERNEL, {"__msgpack_chunked_array__": True, "shape": {"0": 1}, "chunks": {"0": "a"}}),
        "no arrays of one type",
    ),
    "a leaf too many": (leaf("params/step", foreign.packed(SMALL)), "params/step is no weight of a DistilBERT"),
}


@pytest.mark.parametrize(("save", "says"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_such_checkpoint_is_refused(acquire, saved, tmp_path, save, says: str) -> None:
    folder = saved(save)

    with pytest.raises(SourceError) as refused:
        acquire(folder)

    message = str(refused.value)
    assert says in message
    assert ("; " in message, len(message.splitlines()), refused.value.exit_code) == (True, 1, 2)
    assert [*(tmp_path / "cache").glob(".partial-*")] == []


@pytest.mark.parametrize("save", [foreign.save_tensorflow_shards, foreign.save_flax_shards])
def test_a_missing_shard_is_named(acquire, saved, save) -> None:
    folder = saved(save)
    next(folder.glob("*-00002-of-00002.*")).unlink()

    with pytest.raises(SourceError, match=r"shard \w+-00002-of-00002\.\w+ is missing"):
        acquire(folder)
