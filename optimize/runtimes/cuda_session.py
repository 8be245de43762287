"""Sessions of ONNX Runtime's CUDA and TensorRT providers, opened such that nothing runs elsewhere unnoticed.

ONNX Runtime falls back to the CPU, for single nodes or for all of them, and goes on. Here a session that was asked for
a GPU and runs a node on the CPU that does more than arithmetic on shapes is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optimize.errors import UnavailableError
from optimize.interfaces import Feed, Head, Session
from optimize.runtimes.nvidia import gpu_errors
from optimize.runtimes.onnx_runtime import CPU, as_session, require_outputs, session_options

SHAPE_OPERATORS = frozenset(
    {"Add", "Cast", "Concat", "Constant", "ConstantOfShape", "Div", "Equal", "Expand", "Gather", "Identity", "Mod"}
    | {"Mul", "Range", "ReduceProd", "Reshape", "Shape", "Slice", "Squeeze", "Sub", "Unsqueeze", "Where"}
)
"""What ONNX Runtime computes on the CPU on purpose, because other nodes need the result there: sizes of tensors."""


@dataclass(frozen=True)
class Bound:
    """What a run of one shape reads, and where its outputs go."""

    binding: Any
    inputs: Mapping[str, Any]
    options: Any


def create(model: Path, threads: int, providers: Sequence[tuple[str, Mapping[str, str]]]) -> Any:
    """An `onnxruntime.InferenceSession` on the first of `providers`, which the others may only help."""
    import onnxruntime

    options = session_options(threads, {"session.record_ep_graph_assignment_info": "1"})
    names, settings = [name for name, _ in providers], [dict(values) for _, values in providers]
    with gpu_errors("the model"):
        session = onnxruntime.InferenceSession(
            model, options, providers=names, provider_options=settings, enable_fallback=False
        )
    require_provider(session, names)
    return session


def require_provider(session: Any, providers: Sequence[str]) -> None:
    """Refuse a session whose nodes run elsewhere than asked: all of them, or any that is no arithmetic on shapes."""
    wanted, present = providers[0], session.get_providers()
    if wanted not in present:
        raise UnavailableError(
            f"{wanted}: could not be started, and onnxruntime fell back to {', '.join(present)}; "
            "`optimize doctor` says what is missing"
        )
    nodes = [
        (group.ep_name, node.op_type)
        for group in session.get_provider_graph_assignment_info()
        for node in group.get_nodes()
    ]
    stray = sorted({operator for name, operator in nodes if name == CPU and operator not in SHAPE_OPERATORS})
    if stray and wanted != CPU:
        raise UnavailableError(
            f"{wanted}: has no kernel for {', '.join(stray)}, which would run on the CPU; use the pipeline 'cuda'"
        )
    if not any(name == wanted for name, _ in nodes):
        raise UnavailableError(f"{wanted}: took no node of the model; use the pipeline 'cuda'")


def make_session(session: Any, head: Head, *, device: str, index: int, graphs: bool, where: str) -> Session:
    """A session of ours that runs feeds from this machine's memory, and placed feeds without any copy.

    With `graphs`, each shape is recorded as a CUDA graph when it first occurs and replayed from then on, so feeds
    are copied to where it was recorded. `device` is ONNX Runtime's name of it, "cuda" or "cpu".
    """
    plain = as_session(session, head, where=where)
    inputs = [node.name for node in session.get_inputs()]
    found: dict[object, Bound] = {}

    def run(feed: Feed) -> Feed:
        placed = is_placed(feed)
        with gpu_errors(f"a batch of {'x'.join(map(str, shape_of(feed)))} tokens"):
            if not placed and not graphs:
                return plain(feed)
            # A placed feed is recorded where it lies; what is bound keeps it alive, so that its id stays its own.
            key: object = id(feed["input_ids"]) if placed else shape_of(feed)
            if key not in found:
                here = feed if placed else place(feed, device=device, index=index)
                found[key] = _bind(
                    session, head, {name: here[name] for name in inputs}, device, index, len(found), graphs
                )
            bound = found[key]
            if not placed:
                for name, value in bound.inputs.items():
                    value.update_inplace(feed[name])
            session.run_with_iobinding(bound.binding, bound.options)
            bound.binding.synchronize_outputs()
            values = dict(zip(head.outputs, bound.binding.get_outputs(), strict=True))
            return values if placed else {name: value.numpy() for name, value in values.items()}

    return run


def _bind(
    session: Any, head: Head, inputs: Mapping[str, Any], device: str, index: int, number: int, graphs: bool
) -> Bound:
    """Bind inputs where they lie, and outputs to memory of the device: for graphs to a place of their own."""
    import onnxruntime

    require_outputs(session, head, where="the model")
    binding, options = session.io_binding(), onnxruntime.RunOptions()
    for name, value in inputs.items():
        binding.bind_ortvalue_input(name, value)
    for name in head.outputs:
        binding.bind_output(name, device, index)
    if graphs:
        options.add_run_config_entry("gpu_graph_id", "-1")  # not recorded: this run tells the outputs' shapes
        session.run_with_iobinding(binding, options)
        for name, value in zip(head.outputs, binding.get_outputs(), strict=True):
            fixed = onnxruntime.OrtValue.ortvalue_from_shape_and_type(value.shape(), "float32", device, index)
            binding.bind_ortvalue_output(name, fixed)
        options = onnxruntime.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(number + 1))
    return Bound(binding, inputs, options)


def place(feed: Feed, *, device: str, index: int) -> dict[str, Any]:
    """A feed in the memory of a device, as `onnxruntime.OrtValue`s."""
    from onnxruntime import OrtValue

    return {name: OrtValue.ortvalue_from_numpy(array, device, index) for name, array in feed.items()}


def is_placed(feed: Feed) -> bool:
    """Whether a feed lies in the memory of a device."""
    import numpy as np

    return not isinstance(feed["input_ids"], np.ndarray)


def shape_of(feed: Feed) -> tuple[int, ...]:
    """The shape of a feed's texts."""
    ids: Any = feed["input_ids"]
    return tuple(ids.shape() if callable(ids.shape) else ids.shape)
