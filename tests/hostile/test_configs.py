"""Configs and weights' headers that contradict reason or each other: refused by plan, at once, in one line."""

from __future__ import annotations

import json
import os
import struct
import time
from pathlib import Path

import pytest
from hostile.cases import Change, assert_refused, configure, remove, write

SECONDS = 1.5
"""Of processor time: on a busy machine the clock says little."""


def link(name: str, to: str) -> Change:
    return lambda folder: (remove(name)(folder), (folder / name).symlink_to(to))


def pipe(name: str) -> Change:
    return lambda folder: (remove(name)(folder), os.mkfifo(folder / name))


def header(content: object, body: bytes = b"", length: int | None = None) -> Change:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return write("model.safetensors", struct.pack("<Q", len(text) if length is None else length) + text + body)


def index(content: bytes) -> Change:
    return lambda folder: (
        remove("model.safetensors")(folder),
        write("model.safetensors.index.json", content)(folder),
    )


def tensor(dtype: str = "F32", shape: tuple[int, ...] = (1,), offsets: tuple[int, ...] = (0, 4)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


DEEP = b'{"a":' * 99_000
VALUES: dict[str, tuple[str, object]] = {
    f"{name}: {json.dumps(value)[:20]}": (name, value)
    for name in ("vocab_size", "max_position_embeddings", "dim", "n_heads", "n_layers", "hidden_dim", "num_labels")
    for value in (0, -5, 10**9, 10**30, True, "6", 6.0, None, [], {})
} | {
    f"{name}: {json.dumps(value)[:20]}": (name, value)
    for name, value in [
        *((name, value) for name in ("dropout", "attention_dropout") for value in (-1, 1.5, "x", True, [0.1], None)),
        *(("pad_token_id", value) for value in (-5, 10**9, True, "0", 0.0, [0])),
        *((name, value) for name in ("id2label", "label2id") for value in ("x", [1], 5)),
        ("pruned_layers", {}),
        ("pruned_layers", [{"heads": -1}]),
    ]
}


def refused_at_once(optimize, words: list[str], says: str, tmp_path: Path) -> None:
    began = time.process_time()
    asked = optimize("plan", *words)

    assert_refused(asked, 2, says, tmp_path)
    assert len(asked.err) < len(str(tmp_path)) + 500
    assert time.process_time() - began < SECONDS


@pytest.mark.parametrize(("name", "value"), VALUES.values(), ids=VALUES)
def test_a_value_that_no_config_can_have_is_named(optimize, folders, tmp_path: Path, name: str, value: object) -> None:
    refused_at_once(optimize, folders(configure(**{name: value})), name, tmp_path)


FILES: dict[str, tuple[Change, str]] = {
    "a config of a list": (write("config.json", b"[]"), "config.json: holds no JSON object"),
    "a deep config": (write("config.json", DEEP), "config.json: cannot be read (it is nested deeper than 32 levels)"),
    "a key twice": (write("config.json", b'{"dim": 1, "dim": 2}'), "'dim' is there twice in one object"),
    "NaN": (write("config.json", b'{"dropout": NaN}'), "nan is not a finite number"),
    "an infinity": (write("config.json", b'{"dropout": 1e999}'), "inf is not a finite number"),
    "thousands of digits": (write("config.json", b'{"dim": ' + b"9" * 9_000 + b"}"), "config.json: cannot be read"),
    "Latin-1": (write("config.json", b'{"a": "\xe9"}'), "config.json: cannot be read (byte 7 is not UTF-8)"),
    "a long value": (configure(dim="x" * 9_000), "x…', not a whole number"),
    "a FIFO": (pipe("config.json"), "config.json: cannot be read (it is not a regular file)"),
    "zeros without end": (link("config.json", "/dev/zero"), "config.json: cannot be read (it is not a regular file)"),
    "a config of a terabyte": (lambda folder: os.truncate(folder / "config.json", 2**40), "it is larger than 16,384"),
    "another kind": (configure(model_type=["distilbert"]), "is a '['distilbert']' model"),
    "no kind": (configure(model_type=None), "its config names no model_type"),
    "fewer layers": (configure(n_layers=1), "config.json has no place for distilbert.transformer.layer.1"),
    "more layers": (configure(n_layers=5), "layers are missing (distilbert.transformer.layer.2)"),
    "another vocabulary": (configure(vocab_size=999), "word_embeddings.weight has not the shape [999, 128]"),
    "more positions": (configure(max_position_embeddings=1024), "position_embeddings.weight has not the shape [1024"),
    "another FFN": (configure(hidden_dim=64), "ffn.lin1.weight has not the shape [64, 128]"),
    "another width": (configure(dim=256), "has not the shape"),
    "weights of a FIFO": (pipe("model.safetensors"), "model.safetensors: is not a regular file"),
    "weights without end": (link("model.safetensors", "/dev/zero"), "model.safetensors: is not a regular file"),
    "an empty file": (write("model.safetensors", b""), "not a readable safetensors file"),
    "a deep header": (header(DEEP), "not a readable safetensors file"),
    "a header without end": (header(b"{}", length=2**63), "not a readable safetensors file"),
    "a header of a list": (header([]), "not a readable safetensors file"),
    "no tensors": (header({}), "no weights for head"),
    "offsets beyond the end": (header({"a": tensor(offsets=(0, 400), shape=(100,))}, b"0000"), "not a readable"),
    "offsets backwards": (header({"a": tensor(offsets=(4, 0))}, b"0000"), "not a readable"),
    "offsets that overlap": (header({"a": tensor(), "b": tensor()}, b"0000"), "not a readable"),
    "a negative shape": (header({"a": tensor(shape=(-1,))}, b"0000"), "not a readable"),
    "a shape without measure": (header({"a": tensor(shape=(2**62, 2**62))}, b"0000"), "not a readable"),
    "no such type": (header({"a": tensor(dtype="F31")}, b"0000"), "not a readable"),
    "a deep index": (index(DEEP), "index.json: cannot be read (it is nested deeper than 32 levels)"),
    "an index of nothing": (index(b"{}"), "not an index of weights"),
    "an index of numbers": (index(b'{"weight_map": {"a": 5}}'), "not an index of weights"),
    "an index of another folder": (index(b'{"weight_map": {"a": "../../x.safetensors"}}'), "is missing"),
    "an index of an absolute path": (index(b'{"weight_map": {"a": "/dev/zero"}}'), "is missing"),
    "an index of NUL": (index(b'{"weight_map": {"a": "a\\u0000b"}}'), "is missing"),
}


@pytest.mark.parametrize(("change", "says"), FILES.values(), ids=FILES)
def test_a_file_that_no_model_was_saved_with_is_one_line(optimize, folders, tmp_path: Path, change, says: str) -> None:
    refused_at_once(optimize, folders(change), says, tmp_path)


def test_how_a_model_hands_over_its_answers_is_not_the_configs_to_say(checkpoint, tmp_path: Path) -> None:
    import shutil

    import torch

    from optimize.checkpoint import load_model

    asked = {"return_dict": False, "torchscript": True, "output_hidden_states": True, "output_attentions": True}
    shutil.copytree(checkpoint("text-classification"), tmp_path / "model")
    configure(**asked, chunk_size_feed_forward=3)(tmp_path / "model")

    model = load_model(tmp_path / "model").eval()
    answers = model(torch.tensor([[1, 2, 3, 4]]))

    assert list(answers) == ["logits"]
    model.save_pretrained(tmp_path / "saved")
    assert asked.keys().isdisjoint(json.loads((tmp_path / "saved" / "config.json").read_text(encoding="utf-8")))
