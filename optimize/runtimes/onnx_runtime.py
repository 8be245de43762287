"""ONNX Runtime's sessions as sessions of ours; what its targets and stages share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from optimize.errors import StageError
from optimize.interfaces import Feed, Head, Session

if TYPE_CHECKING:
    import onnx
    import onnxruntime

MODEL_FILE = "model.onnx"
CPU = "CPUExecutionProvider"
SLEEPING: Mapping[str, str] = {"session.intra_op.allow_spinning": "0"}
"""Settings under which threads without work sleep: where they spin, they take cores from whatever else runs."""
ERRORS, NOTHING = 3, 4
"""What a session logs; ONNX Runtime's own default is to warn as well."""


def session_options(
    threads: int,
    settings: Mapping[str, str] | None = None,
    *,
    log: int = ERRORS,
    rewrite: bool = True,
    keep_memory: bool = True,
) -> onnxruntime.SessionOptions:
    """Options of a session, with ONNX Runtime's own `settings`; all of this package's sessions have theirs from here.

    Without `rewrite` the graph is run as it is. Without `keep_memory` each run takes its memory and gives it back,
    where sessions otherwise keep what their largest run needed.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = log
    options.enable_cpu_mem_arena = keep_memory
    options.enable_mem_pattern = keep_memory
    if not rewrite:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    for name, value in (settings or {}).items():
        options.add_session_config_entry(name, value)
    return options


def cpu_session(model: Path | str | bytes, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    """ONNX Runtime's own session of a model, on the CPU provider."""
    import onnxruntime

    return onnxruntime.InferenceSession(model, options, providers=[CPU])


def open_on_cpu(
    model: Path | bytes, threads: int, head: Head, *, where: str, settings: Mapping[str, str] | None = None
) -> Session:
    """Open a model on the CPU provider; the session maps int64 arrays to arrays named by the head."""
    return as_session(cpu_session(model, session_options(threads, settings)), head, where=where)


def as_session(session: onnxruntime.InferenceSession, head: Head, *, where: str) -> Session:
    """ONNX Runtime's session as a session of ours."""
    require_outputs(session, head, where=where)
    inputs = input_names(session)

    def run(feed: Feed) -> Feed:
        values = session.run(list(head.outputs), {name: feed[name] for name in inputs})
        return dict(zip(head.outputs, values, strict=True))

    return run


def input_names(session: onnxruntime.InferenceSession) -> list[str]:
    """What a session reads."""
    return [node.name for node in session.get_inputs()]


def require_outputs(session: onnxruntime.InferenceSession, head: Head, *, where: str) -> None:
    """Refuse a model without the head's outputs."""
    if missing := set(head.outputs) - {node.name for node in session.get_outputs()}:
        raise StageError(
            f"{where}: the model has no output {', '.join(sorted(missing))}; export it for head '{head.name}'"
        )


def further_outputs(model: onnx.ModelProto, names: Iterable[str]) -> bytes:
    """What to append to a serialized model so that it gives out inner values of these names as well.

    Concatenated messages are one message to protobuf, its lists joined: no copy of the weights is made, and the model
    in memory stays as it is.
    """
    import onnx

    present = {output.name for output in model.graph.output}
    added = onnx.GraphProto()
    for name in names:
        if name not in present:
            added.output.append(onnx.ValueInfoProto(name=name))
    content: bytes = onnx.ModelProto(graph=added).SerializeToString()
    return content


def tensor_types(model: onnx.ModelProto) -> dict[str, int]:
    """The element type (`onnx.TensorProto.DataType`) of every node's output, as ONNX Runtime infers it.

    onnx's own inference knows nothing of ONNX Runtime's operators. `model` is left as it is.
    """
    names: list[str] = []
    for node in model.graph.node:
        names += filter(None, node.output)  # an output that is left out has no name
    content = model.SerializeToString() + further_outputs(model, names)
    session = cpu_session(content, session_options(1, rewrite=False))
    return {node.name: ELEMENT_TYPES.get(node.type, 0) for node in session.get_outputs()}


ELEMENT_TYPES = {"tensor(float)": 1, "tensor(float16)": 10}
"""The floating types among `onnx.TensorProto.DataType`; every other type counts as 0, which is undefined there."""
