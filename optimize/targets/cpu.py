"""Intel and AMD CPUs through ONNX Runtime's CPU execution provider."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from optimize.interfaces import Head, Params, Session, Target
from optimize.runtimes.onnx_runtime import MODEL_FILE, open_on_cpu
from optimize.runtimes.pytorch import on_cpu


def unavailable(_: Params) -> str | None:
    """Why this machine cannot run the target, or None."""
    if importlib.util.find_spec("onnxruntime") is None:
        return "onnxruntime is not installed; run: pip install 'distilbert-optimize[cpu]'"
    return None


def open_session(folder: Path, threads: int, head: Head, _: Params) -> Session:
    """Open an ONNX artifact; the session maps int64 arrays to float32 arrays named by the head."""
    return open_on_cpu(folder / MODEL_FILE, threads, head, where=folder.name)


TARGET = Target(
    name="cpu",
    runs="onnx",
    extra="cpu",
    needs=("onnxruntime",),
    reference=(("export", {"readout_slice": False}),),
    unavailable=unavailable,
    open=open_session,
    pytorch=on_cpu,
    summary="Intel/AMD CPU, ONNX Runtime",
    library="ONNX Runtime",
    calibrators=("streaming", "onnxruntime"),
    calibration_samples=(64, 512),
)
