"""Weights as transformers' `save_pretrained` writes them, whatever wrote them: safetensors under their own names.

transformers looks for names as they are. What training's wrappers put before them (see `names`) would make every weight
a missing one, and what a training loop keeps beside a state dict hides it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from optimize.source.weights import read_pickle, weight_files

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = "model.safetensors"


def write_plain(folder: Path, wrapper: str) -> None:
    """Write the weights of a folder, a copy of ours, anew in one file, without `wrapper` before their names.

    Where they are so already, nothing is written.
    """
    from safetensors.torch import load_file, save_file

    files = weight_files(folder)
    if not wrapper and all(path.suffix == ".safetensors" for path in files):
        return
    weights: dict[str, Tensor] = {}
    for path in files:
        found = load_file(path) if path.suffix == ".safetensors" else read_pickle(path)
        # Tied weights share their memory in a pickle, which safetensors refuses.
        weights.update((name.removeprefix(wrapper), weight.clone().contiguous()) for name, weight in found.items())
    for path in (*files, *folder.glob("*.index.json")):
        path.unlink()
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
