"""Changes of a checkpoint's folder: its weights wrapped, renamed or packed otherwise, as people have them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Change = Callable[[Path], object]
Weights = dict[str, torch.Tensor]
HEAD = "text-classification"


def write(name: str, content: bytes) -> Change:
    return lambda folder: (folder / name).write_bytes(content)


def remove(*names: str) -> Change:
    return lambda folder: [(folder / name).unlink() for name in names]


def keep_vocabulary_alone(folder: Path) -> None:
    """A tokenizer as vocab.txt, which transformers 5 does not write any more, and no tokenizer.json."""
    path = folder / "tokenizer.json"
    vocabulary = json.loads(path.read_text(encoding="utf-8"))["model"]["vocab"]
    (folder / "vocab.txt").write_text(
        "".join(f"{piece}\n" for piece in sorted(vocabulary, key=vocabulary.get)), "utf-8"
    )
    path.unlink()


def remove_tokenizer(folder: Path) -> None:
    for name in ("tokenizer.json", "vocab.txt"):
        (folder / name).unlink(missing_ok=True)


def both(first: Change, second: Change) -> Change:
    return lambda folder: (first(folder), second(folder))


def configure(**values: Any) -> Change:
    return edit_json("config.json", **values)


def edit_json(name: str, **values: Any) -> Change:
    """Set keys of a JSON file; Ellipsis takes one away."""

    def change(folder: Path) -> None:
        content = json.loads((folder / name).read_text(encoding="utf-8")) | values
        kept = {key: value for key, value in content.items() if value is not ...}
        (folder / name).write_text(json.dumps(kept), encoding="utf-8")

    return change


def reweigh(turn: Callable[[Weights], Weights]) -> Change:
    def change(folder: Path) -> None:
        weights = turn(load_file(folder / "model.safetensors"))
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    return change


def replace(name: str, turn: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    return reweigh(lambda weights: {**weights, name: turn(weights[name]).contiguous()})


def add(**shapes: tuple[int, ...]) -> Change:
    """Weights of nobody, of these shapes; a double underscore stands for a dot."""
    more = {name.replace("__", "."): torch.ones(shape) for name, shape in shapes.items()}
    return reweigh(lambda weights: weights | more)


def wrap(prefix: str, but: tuple[str, ...] = ()) -> Change:
    """A prefix before all names but these."""
    return reweigh(lambda weights: {(name if name in but else prefix + name): each for name, each in weights.items()})


def pickled(content: Callable[[Weights], object]) -> Change:
    def change(folder: Path) -> None:
        torch.save(content(load_file(folder / "model.safetensors")), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()

    return change
