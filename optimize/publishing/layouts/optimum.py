"""The model's files as they are: what ONNX Runtime, OpenVINO, Optimum and sentence-transformers load by themselves."""

from __future__ import annotations

from pathlib import Path

from optimize.manifest import Manifest
from optimize.publishing.layouts.layout import Layout


def arrange(folder: Path, record: Manifest) -> str:
    """Leave everything where it is; the card says how to load it."""
    del folder, record
    return ""


LAYOUT = Layout(
    arrange=arrange, summary="Files as Optimum, ONNX Runtime and OpenVINO load them", whole=True, moves=False
)
