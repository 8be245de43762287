"""The FP32 reference that every target is compared with: PyTorch, eager, on the CPU.

It is opened the way users run it: `from_pretrained`, `eval`, `inference_mode`, attention through
scaled_dot_product_attention, as transformers chooses by default.
"""

from __future__ import annotations

from pathlib import Path

from optimize.checkpoint import load_model
from optimize.interfaces import Feed, Head, Params, Session


def open_torch(folder: Path, threads: int, head: Head, _: Params) -> Session:
    """Open a torch artifact; the session maps int64 arrays to float32 arrays named by the head."""
    import torch

    torch.set_num_threads(threads)
    model = load_model(folder, head.auto_class).eval()

    def run(feed: Feed) -> Feed:
        with torch.inference_mode():
            outputs = model(**{name: torch.from_numpy(array) for name, array in feed.items()})
        return {name: outputs[name].numpy() for name in head.outputs}

    return run
