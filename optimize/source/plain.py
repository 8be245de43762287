"""Weights as transformers' `save_pretrained` writes them, whatever wrote them: safetensors under their own names.

transformers looks for names as they are. What training's wrappers put before them (see `names`) would make every weight
a missing one, and what a training loop keeps beside a state dict hides it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from optimize.source.weights import read_pickle, weight_files

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = "model.safetensors"


def write_plain(folder: Path, wrapper: str, more: Mapping[str, Tensor] | None = None) -> None:
    """Write the weights of a folder, a copy of ours, anew in one file, without `wrapper` before their names.

    `more` are weights that are added, or take the place of others. Where all is as it has to be, nothing is written.
    """
    from safetensors.torch import save_file

    files = weight_files(folder)
    if not wrapper and not more and all(path.suffix == ".safetensors" for path in files):
        return
    weights: dict[str, Tensor] = {}
    for path in files:
        # Tied weights share their memory in a pickle, which safetensors refuses.
        weights.update((name.removeprefix(wrapper), each.clone()) for name, each in read_weights(path).items())
    weights |= more or {}
    for path in (*files, *folder.glob("*.index.json")):
        path.unlink()
    save_file({name: each.contiguous() for name, each in weights.items()}, folder / WEIGHTS, metadata={"format": "pt"})


def read_weights(path: Path) -> dict[str, Tensor]:
    """What a file holds, by name."""
    from safetensors.torch import load_file

    return dict(load_file(path)) if path.suffix == ".safetensors" else read_pickle(path)
