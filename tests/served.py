"""Small models as a layout arranges them: the exported graph of a head, and a manifest that speaks of it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from report.conftest import REQUEST, SOURCE, STAGES, make_manifest

from optimize.artifact import Kind
from optimize.manifest import Manifest
from optimize.publishing.layouts import LAYOUTS
from optimize.publishing.layouts.served import HANDLERS

TEXTS = {
    "feature-extraction": ["The first text.", "Another one, and a longer one."],
    "fill-mask": ["The [MASK] is here.", "One [MASK] and [MASK]."],
    "text-classification": ["A good film.", "It was bad, and long."],
    "token-classification": ["Ada lives in London.", "Paris and Rome."],
    "multiple-choice": [{"context": "She opened the door.", "choices": ["Then she left.", "It rained on."]}],
    "question-answering": [{"question": "Who lives there?", "context": "Ada lives in London, and Bob in Rome."}],
}
"""Inputs of each head."""


def record_of(head: str, kind: Kind = "onnx", *stages: dict[str, Any], **changes: Any) -> Manifest:
    """A manifest of a model of this head and kind."""
    target = "cpu" if kind == "onnx" else kind
    artifact = {**STAGES[-1]["artifact"], "kind": kind}
    source = {**SOURCE, "id": "someone/Distil_BERT-sst2"}
    made = [*STAGES[:-1], {**STAGES[-1], "artifact": artifact}, *stages]
    return make_manifest(
        **{"request": {**REQUEST, "head": head, "target": target}, "stages": made, "source": source, **changes}
    )


@pytest.fixture
def arranged(context, apply, tmp_path) -> Callable[..., Path]:
    """A folder as a layout arranges it: a head's exported graph, or what is given."""

    def make(layout: str, head: str, record: Manifest | None = None, source: Path | None = None) -> Path:
        folder = tmp_path / f"{layout}-{head}-{len(list(tmp_path.iterdir()))}"
        shutil.copytree(source or apply(context(head), "export").artifact.path, folder)
        LAYOUTS[layout].arrange(folder, record or record_of(head))
        return folder

    return make


@pytest.fixture
def handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is copied beside models can be imported by its name alone, as it is there."""
    monkeypatch.syspath_prepend(str(HANDLERS))
    yield
    for name in {path.stem for path in HANDLERS.glob("*.py")}:
        sys.modules.pop(name, None)
