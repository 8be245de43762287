"""ONNX Runtime's sessions as sessions of ours; what its targets and stages share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimize.errors import StageError
from optimize.interfaces import Feed, Head, Session

if TYPE_CHECKING:
    import onnx

MODEL_FILE = "model.onnx"
CPU = "CPUExecutionProvider"


def session_options(threads: int, settings: Mapping[str, str] | None = None) -> Any:
    """Options of a session that says errors alone, with ONNX Runtime's own `settings`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    for name, value in (settings or {}).items():
        options.add_session_config_entry(name, value)
    return options


def open_on_cpu(
    model: Path | bytes, threads: int, head: Head, *, where: str, settings: Mapping[str, str] | None = None
) -> Session:
    """Open a model on the CPU provider; the session maps int64 arrays to arrays named by the head."""
    import onnxruntime

    options = session_options(threads, settings)
    return as_session(onnxruntime.InferenceSession(model, options, providers=[CPU]), head, where=where)


def as_session(session: Any, head: Head, *, where: str) -> Session:
    """An `onnxruntime.InferenceSession` as a session of ours."""
    require_outputs(session, head, where=where)
    inputs = {node.name for node in session.get_inputs()}

    def run(feed: Feed) -> Feed:
        values = session.run(list(head.outputs), {name: feed[name] for name in inputs})
        return dict(zip(head.outputs, values, strict=True))

    return run


def require_outputs(session: Any, head: Head, *, where: str) -> None:
    """Refuse a model without the head's outputs."""
    if missing := set(head.outputs) - {node.name for node in session.get_outputs()}:
        raise StageError(
            f"{where}: the model has no output {', '.join(sorted(missing))}; export it for head '{head.name}'"
        )


def tensor_types(model: onnx.ModelProto) -> dict[str, int]:
    """The element type (`onnx.TensorProto.DataType`) of every node's output, as ONNX Runtime infers it.

    onnx's own inference knows nothing of ONNX Runtime's operators. `model` is left as it is.
    """
    import onnx
    import onnxruntime

    names = [name for node in model.graph.node for name in node.output if name]
    present = {output.name for output in model.graph.output}
    added = onnx.GraphProto(output=[onnx.ValueInfoProto(name=name) for name in names if name not in present])
    options = session_options(1)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    # Concatenated messages are one message to protobuf, its lists joined.
    content = model.SerializeToString() + onnx.ModelProto(graph=added).SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=[CPU])
    return {node.name: ELEMENT_TYPES.get(node.type, 0) for node in session.get_outputs()}


ELEMENT_TYPES = {"tensor(float)": 1, "tensor(float16)": 10}
"""The floating types among `onnx.TensorProto.DataType`; every other type counts as 0, which is undefined there."""
