"""Folders of sentence-transformers, written by hand around a small checkpoint."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doubles import Silent
from models import make_context
from safetensors.numpy import save_file

from optimize.building import open_folder
from optimize.data.splits import Wanted, load_splits
from optimize.data.tokenized import encode, read_text
from optimize.interfaces import Context
from optimize.source.acquire import acquire_checkpoint
from optimize.source.finding import inspect_checkpoint

WIDTH = 16
"""Of what the Dense gives."""
OLD = "sentence_transformers.models.{}"
NEW = {
    "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
    "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
    "Dense": "sentence_transformers.base.modules.dense.Dense",
    "Normalize": "sentence_transformers.base.modules.normalize.Normalize",
    "LayerNorm": "sentence_transformers.sentence_transformer.modules.layer_norm.LayerNorm",
    "Dropout": "sentence_transformers.sentence_transformer.modules.dropout.Dropout",
}
"""What version 6 calls the classes."""

FLAGS = tuple(
    f"pooling_mode_{kind}"
    for kind in ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
)


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def write_modules(
    folder: Path, modules: Sequence[tuple[str, Mapping[str, Any]]], *, types: Mapping[str, str], transformer: str = ""
) -> None:
    """Write modules.json and the folders of the modules, whose weights are random, and always the same."""
    listed = [{"idx": 0, "name": "0", "path": transformer, "type": types["Transformer"]}]
    for number, (kind, config) in enumerate(modules, start=1):
        path = f"{number}_{kind}"
        listed.append({"idx": number, "name": str(number), "path": path, "type": types[kind]})
        write_json(folder / path / "config.json", config)
        if weights := weights_of(kind, config):
            save_file(weights, folder / path / "model.safetensors")
    write_json(folder / "modules.json", listed)


def weights_of(kind: str, config: Mapping[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(5)
    if kind == "LayerNorm":
        return {f"norm.{name}": rng.normal(size=config["dimension"]).astype(np.float32) for name in ("weight", "bias")}
    if kind != "Dense":
        return {}
    shape = (config["out_features"], config["in_features"])
    weights = {"linear.weight": rng.normal(size=shape).astype(np.float32) / np.float32(np.sqrt(shape[1]))}
    if config.get("bias", True):
        weights["linear.bias"] = rng.normal(size=shape[0]).astype(np.float32)
    return weights


@pytest.fixture(scope="session")
def encoder_folder(checkpoint, tmp_path_factory) -> Callable[..., Path]:
    """A sentence encoder with these modules, in the words of version 3, or of 6 with `new`; to be written to."""

    def make(
        *modules: tuple[str, Mapping[str, Any]],
        pooling: str | list[str] = "cls",
        new: bool = True,
        transformer: str = "",
        settings: Mapping[str, Any] | None = None,
        described: Mapping[str, Any] | None = None,
    ) -> Path:
        folder = tmp_path_factory.mktemp("encoder") / "encoder"
        shutil.copytree(checkpoint("feature-extraction"), folder / transformer)
        width = json.loads((folder / transformer / "config.json").read_text(encoding="utf-8"))["dim"]
        config = {"embedding_dimension": width, "pooling_mode": pooling, "include_prompt": True}
        if not new:
            flags = {name: name.startswith(f"pooling_mode_{pooling}") for name in FLAGS}
            config = {"word_embedding_dimension": width, **flags}
        types = NEW if new else {name: OLD.format(name) for name in NEW}
        write_modules(folder, [("Pooling", config), *modules], types=types, transformer=transformer)
        write_json(folder / transformer / "sentence_bert_config.json", settings or {"max_seq_length": 24})
        write_json(folder / "config_sentence_transformers.json", described or {})
        return folder

    return make


@pytest.fixture(scope="session")
def encoder_context(tmp_path_factory) -> Callable[[Path], Context]:
    """What stages see of a sentence encoder's folder: its checkpoint in FP32, and a little of the demo's text."""

    def make(folder: Path) -> Context:
        found, head = inspect_checkpoint(str(folder))
        root = tmp_path_factory.mktemp("cache")
        artifact = acquire_checkpoint(found, head, root=root, seed=0, progress=Silent()).artifact
        text = read_text(artifact.path, 64)
        splits = load_splits(Wanted("demo", None, {}, None, 8, 8, 8, 0), head, text.config)
        encoded = [encode(head, rows, text) for rows in (splits.calibration, splits.tuning)]
        here = make_context(head.name, artifact.path, *encoded, Silent())
        return replace(here, head=head, open=partial(open_folder, head=head, threads=1))

    return make
