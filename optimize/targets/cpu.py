"""Intel and AMD CPUs through ONNX Runtime's CPU execution provider."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from optimize.errors import StageError
from optimize.interfaces import Feed, Head, Params, Session, Target


def unavailable(_: Params) -> str | None:
    """Why this machine cannot run the target, or None."""
    if importlib.util.find_spec("onnxruntime") is None:
        return "onnxruntime is not installed; run: pip install 'distilbert-optimize[cpu]'"
    return None


def open_session(folder: Path, threads: int, head: Head, _: Params) -> Session:
    """Open an ONNX artifact; the session maps int64 arrays to float32 arrays named by the head."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    inputs = {node.name for node in session.get_inputs()}
    outputs = [node.name for node in session.get_outputs()]
    if missing := set(head.outputs) - set(outputs):
        raise StageError(
            f"{folder.name}: the model has no output {', '.join(sorted(missing))}; export it for head '{head.name}'"
        )

    def run(feed: Feed) -> Feed:
        values = session.run(list(head.outputs), {name: feed[name] for name in inputs})
        return dict(zip(head.outputs, values, strict=True))

    return run


TARGET = Target(
    name="cpu",
    runs="onnx",
    extra="cpu",
    needs=("onnxruntime",),
    reference=(("export", {"readout_slice": False}),),
    unavailable=unavailable,
    open=open_session,
    summary="Intel/AMD CPU, ONNX Runtime",
)
