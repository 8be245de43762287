"""Sessions of ONNX Runtime's CUDA and TensorRT providers, opened such that nothing runs elsewhere unnoticed.

ONNX Runtime falls back to the CPU, for single nodes or for all of them, and goes on. Here a session that was asked for
a GPU and runs a node on the CPU that does more than arithmetic on shapes is refused.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from optimize.errors import UnavailableError
from optimize.interfaces import Feed, Head, Session
from optimize.runtimes.nvidia import gpu_errors
from optimize.runtimes.onnx_runtime import CPU, as_session, input_names, require_outputs, session_options

if TYPE_CHECKING:
    import onnxruntime

    Values = dict[str, onnxruntime.OrtValue]

SHAPE_OPERATORS = frozenset(
    {"Add", "Cast", "Concat", "Constant", "ConstantOfShape", "Div", "Equal", "Expand", "Gather", "Identity", "Mod"}
    | {"Mul", "Range", "ReduceProd", "Reshape", "Shape", "Slice", "Squeeze", "Sub", "Unsqueeze", "Where"}
)
"""What ONNX Runtime computes on the CPU on purpose, because other nodes need the result there: sizes of tensors."""
GRAPH_ID = "gpu_graph_id"
"""The option of a run that says which CUDA graph it is recorded as, or replays."""
NOT_RECORDED = -1


@dataclass(frozen=True)
class Bound:
    """A run that is ready to go: the values that it reads, where its outputs go, and ONNX Runtime's options for it."""

    binding: onnxruntime.IOBinding
    inputs: Values
    options: onnxruntime.RunOptions


def create(model: Path, threads: int, providers: Sequence[tuple[str, dict[str, str]]]) -> onnxruntime.InferenceSession:
    """ONNX Runtime's session on the first of `providers`, which the others may only help."""
    import onnxruntime

    options = session_options(threads, {"session.record_ep_graph_assignment_info": "1"})
    with gpu_errors("the model"):
        session = onnxruntime.InferenceSession(model, options, providers=list(providers), enable_fallback=False)
    require_provider(session, [name for name, _ in providers])
    return session


def require_provider(session: onnxruntime.InferenceSession, providers: Sequence[str]) -> None:
    """Refuse a session whose nodes run elsewhere than asked: all of them, or any that is not arithmetic on shapes."""
    wanted, present = providers[0], session.get_providers()
    if wanted not in present:
        raise UnavailableError(
            f"{wanted}: could not be started, and onnxruntime fell back to {', '.join(present)}; "
            "`optimize doctor` says what is missing"
        )
    operators: dict[str, set[str]] = defaultdict(set)
    for group in session.get_provider_graph_assignment_info():
        for node in group.get_nodes():
            operators[group.ep_name].add(node.op_type)
    stray = sorted(operators[CPU] - SHAPE_OPERATORS)
    if stray and wanted != CPU:
        raise UnavailableError(
            f"{wanted}: has no kernel for {', '.join(stray)}, which would run on the CPU; use the pipeline 'cuda'"
        )
    if not operators[wanted]:
        raise UnavailableError(f"{wanted}: took no node of the model; use the pipeline 'cuda'")


def make_session(
    session: onnxruntime.InferenceSession, head: Head, *, device: str, index: int, graphs: bool, where: str
) -> Session:
    """A session of ours that runs feeds from this machine's memory, and placed feeds without any copy.

    With `graphs`, each shape is recorded as a CUDA graph when it first occurs and replayed from then on, so feeds
    are copied to where it was recorded. `device` is ONNX Runtime's name of it, "cuda" or "cpu".
    """
    plain = as_session(session, head, where=where)
    inputs = input_names(session)
    ready: dict[object, Bound] = {}

    def bind(key: object, placed: Values) -> Bound:
        """What is bound under a key, or else `placed`, which is bound now."""
        if key not in ready:
            # Graphs are told apart by number; 0 is what runs that name none are recorded as.
            graph = len(ready) + 1 if graphs else None
            read = {name: placed[name] for name in inputs}
            ready[key] = _bind(session, head, read, device=device, index=index, graph=graph)
        return ready[key]

    def run_placed(feed: Values) -> Values:
        """Feed and outputs lie on the device; a feed is recorded where it lies."""
        # `ready` holds on to the feed, so no other object can come to have its id.
        return _run(session, head, bind(id(feed["input_ids"]), feed))

    def run_recorded(feed: Feed) -> Feed:
        """Feed and outputs lie in this machine's memory, and the graph of their shape on the device."""
        shape = shape_of(feed)
        bound = ready[shape] if shape in ready else bind(shape, place(feed, device=device, index=index))
        # A graph reads the addresses that it was recorded with, whatever they hold by then.
        for name, value in bound.inputs.items():
            value.update_inplace(feed[name])
        return {name: value.numpy() for name, value in _run(session, head, bound).items()}

    def run(feed: Feed) -> Feed:
        with gpu_errors(f"a batch of {'x'.join(map(str, shape_of(feed)))} tokens"):
            if is_placed(feed):
                return run_placed(feed)
            return run_recorded(feed) if graphs else plain(feed)

    return run


def _bind(
    session: onnxruntime.InferenceSession, head: Head, inputs: Values, *, device: str, index: int, graph: int | None
) -> Bound:
    """Bind inputs where they lie, and outputs to the device's memory; with `graph`, a number, for a graph to record."""
    import onnxruntime

    require_outputs(session, head, where="the model")
    binding = session.io_binding()
    for name, value in inputs.items():
        binding.bind_ortvalue_input(name, value)
    for name in head.outputs:
        binding.bind_output(name, device, index)
    if graph is None:
        return Bound(binding, inputs, onnxruntime.RunOptions())

    # A graph writes to the addresses that it was recorded with, so its outputs need places that stay. How large these
    # have to be only a run can say, which must not itself be recorded.
    session.run_with_iobinding(binding, _recorded_as(NOT_RECORDED))
    for name, value in zip(head.outputs, binding.get_outputs(), strict=True):
        fixed = onnxruntime.OrtValue.ortvalue_from_shape_and_type(value.shape(), "float32", device, index)
        binding.bind_ortvalue_output(name, fixed)
    return Bound(binding, inputs, _recorded_as(graph))


def _recorded_as(graph: int) -> onnxruntime.RunOptions:
    """Options of runs that are recorded under a number the first time, and replayed from then on."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.add_run_config_entry(GRAPH_ID, str(graph))
    return options


def _run(session: onnxruntime.InferenceSession, head: Head, bound: Bound) -> Values:
    """Run what is bound; the outputs, which are on the device, once they are computed."""
    session.run_with_iobinding(bound.binding, bound.options)
    bound.binding.synchronize_outputs()
    return dict(zip(head.outputs, bound.binding.get_outputs(), strict=True))


def place(feed: Feed, *, device: str, index: int) -> Values:
    """A feed in the memory of a device."""
    from onnxruntime import OrtValue

    return {name: OrtValue.ortvalue_from_numpy(array, device, index) for name, array in feed.items()}


def is_placed(feed: Feed) -> bool:
    """Whether a feed lies in the memory of a device."""
    import numpy as np

    return not isinstance(feed["input_ids"], np.ndarray)


def shape_of(feed: Feed) -> tuple[int, ...]:
    """The shape of a feed's texts."""
    if is_placed(feed):
        return tuple(cast("onnxruntime.OrtValue", feed["input_ids"]).shape())
    return tuple(feed["input_ids"].shape)
