"""What a layout is: the model's files as one way of serving wants them, and what it cannot hold.

A layout is asked first whether it can hold a run's model, before anything is written. It then arranges a folder that
holds the model alone; card, manifest and checksums are written after that, so they are of what is there.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from optimize.artifact import Kind
from optimize.errors import RequestError
from optimize.heads import HEADS
from optimize.manifest import Manifest

FIXED = "reshape_openvino"
"""The stage after which a model takes texts of some lengths only."""
VERSION = "1"
"""The first version of a model, in the folders of servers that number them."""


@dataclass(frozen=True)
class Layout:
    """One way of arranging a publication.

    `arrange` takes a folder that holds a model and nothing else, arranges it, and gives the Markdown that says how to
    serve it; an empty text leaves that to the card. `kinds` and `heads` are those it can hold, and `refuses` says of a
    run what else it cannot, with what to do about it. `whole` layouts are read by the libraries of users, so that they
    hold custom heads as well. One that `moves` nothing leaves the model's files to whoever opens publications.
    """

    arrange: Callable[[Path, Manifest], str]
    summary: str
    kinds: tuple[Kind, ...] = ("onnx", "openvino")
    heads: tuple[str, ...] = tuple(HEADS)
    refuses: Callable[[Manifest], str | None] = lambda _: None
    whole: bool = False
    moves: bool = True


def check_layout(name: str, layout: Layout, record: Manifest) -> None:
    """Refuse a run whose model the layout cannot hold. Raises RequestError."""
    if reason := _reason(layout, record):
        raise RequestError(f"--layout {name}: {reason}")


def _reason(layout: Layout, record: Manifest) -> str | None:
    kind, request = record.stages[-1].artifact.kind, record.request
    if not layout.whole and request.head_code is not None:
        return f"cannot answer for '{request.head}', a head of your own; take the layout 'optimum'"
    if request.head not in layout.heads and request.head_code is None:
        return f"cannot hold the head '{request.head}', only {', '.join(layout.heads)}; take another layout"
    if kind not in layout.kinds:
        targets = {"onnx": "cpu or cuda", "openvino": "openvino"}
        wanted = " or ".join(targets[each] for each in layout.kinds if each in targets)
        return f"cannot hold a model in {kind}; run a pipeline of target {wanted}"
    return layout.refuses(record)


def refuse_fixed(record: Manifest) -> str | None:
    """What a server of texts of any length cannot hold."""
    if any(stage.stage == FIXED for stage in record.stages):
        return f"needs a model for texts of any length; leave '{FIXED}' out of the pipeline"
    return None


def model_name(record: Manifest) -> str:
    """A name for servers, which Kubernetes takes as well: lower-case letters, digits and hyphens, 40 at most."""
    last = record.source.id.rstrip("/").rpartition("/")[2].lower()
    name = re.sub(r"[^a-z0-9]+", "-", last)[:40].strip("-")
    return name if name[:1].isalpha() else f"model-{name}".strip("-")


def move_into(folder: Path, place: str) -> Path:
    """Move all that a folder holds into a folder in it; gives that."""
    entries, target = list(folder.iterdir()), folder / place
    # A model has a folder of this name at most by accident; renamed first, it is not moved into itself.
    moving = folder / ".moving"
    moving.mkdir()
    for entry in entries:
        entry.rename(moving / entry.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    moving.rename(target)
    return target
