"""A PyTorch model as an ONNX graph: two tracers of PyTorch's and one of optimum's, one result.

Whoever traced it, the graph has the head's inputs and outputs by name, an axis for each of batch, choices and sequence
that stays open, nodes named by the module that they come from, and weights under their parameters' names.
"""

from __future__ import annotations

import ast
import io
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from optimize.errors import UnavailableError
from optimize.graphs.tidy import tidy
from optimize.interfaces import Head
from optimize.runtimes.quiet import undisturbed
from optimize.sentences.configs import TOKENS

if TYPE_CHECKING:
    import onnx_ir as ir
    from torch import Tensor
    from torch.export import Dim
    from torch.nn import Module

Exporter = Literal["torchscript", "dynamo", "optimum"]
INPUTS = ("input_ids", "attention_mask")
AXES = {"batch": "batch_size", "choices": "num_choices", "sequence": "sequence_length"}
"""Names of open axes in a graph, by the head's: those of optimum, which others' code looks for."""
EXAMPLE = {"batch": 2, "choices": 3, "sequence": 16}
"""Sizes to trace with; none is 1, which would be taken for a constant, and no two axes are of one size."""
MOST = {"batch": 2**20, "choices": 2**10}
POSITIONS = "position_embeddings.weight"
SCOPES = "pkg.torch.onnx.name_scopes"
"""Metadata of a node: the modules around it, from the outermost to its own name."""


def trace(model: Module, head: Head, outputs: Sequence[str], *, exporter: Exporter, opset: int) -> ir.Model:
    """The graph of a module that answers ids and a mask of the head's axes with a tuple of these outputs.

    Raises UnavailableError for "optimum" where optimum-onnx is not installed.
    """
    # Parity says whether they were right to warn.
    with undisturbed():
        traced = TRACERS[exporter](model, head, outputs, opset)
    tidy(traced)
    return traced


def _torchscript(model: Module, head: Head, outputs: Sequence[str], opset: int) -> ir.Model:
    import onnx
    import onnx_ir
    import torch

    asked = dict(enumerate(AXES[name] for name in head.axes))
    short = dict(list(asked.items())[:-1])
    answered = {name: asked if name == TOKENS or head.reads == "all tokens" else short for name in outputs}
    written = io.BytesIO()
    torch.onnx.export(
        model,
        example(head, most_tokens(model)),
        written,
        dynamo=False,
        do_constant_folding=False,
        opset_version=opset,
        input_names=list(INPUTS),
        output_names=list(outputs),
        dynamic_axes=dict.fromkeys(INPUTS, asked) | answered,
    )
    return onnx_ir.from_proto(onnx.load_model_from_string(written.getvalue()))


def _dynamo(model: Module, head: Head, outputs: Sequence[str], opset: int) -> ir.Model:
    import torch

    most = most_tokens(model)
    axes = open_axes(head, most)
    program = torch.onnx.export(
        model,
        example(head, most),
        dynamo=True,
        opset_version=opset,
        input_names=list(INPUTS),
        output_names=list(outputs),
        dynamic_shapes=(axes, axes),
        verbose=False,
    )
    _name_by_module(program.model)
    return program.model


def _name_by_module(model: ir.Model) -> None:
    """Name nodes as the other tracer does, `/distilbert/transformer/layer.0/ffn/lin1/MatMul_7`; drop its own notes."""
    for node in model.graph:
        scopes = ast.literal_eval(node.metadata_props.get(SCOPES, "['']"))
        steps = [inner.removeprefix(f"{outer}.") for outer, inner in pairwise(scopes[:-1])]
        node.name = "/".join(["", *steps, str(node.name).removeprefix("node_")])
        node.metadata_props.clear()


def _optimum(model: Module, head: Head, _: Sequence[str], opset: int) -> ir.Model:
    if find_spec("optimum.exporters.onnx") is None:
        raise UnavailableError(
            "export: exporter 'optimum' needs optimum-onnx; pip install 'distilbert-optimize[optimum]', or leave it out"
        )
    import onnx
    import onnx_ir
    from optimum.exporters.onnx import onnx_export_from_model

    with tempfile.TemporaryDirectory() as folder:
        onnx_export_from_model(model, Path(folder), task=head.name, opset=opset, do_validation=False)
        return onnx_ir.from_proto(onnx.load(Path(folder) / "model.onnx"))


TRACERS: Mapping[Exporter, Callable[[Module, Head, Sequence[str], int], ir.Model]] = {
    "torchscript": _torchscript,
    "dynamo": _dynamo,
    "optimum": _optimum,
}


def example(head: Head, most_tokens: int) -> tuple[Tensor, Tensor]:
    """Token ids and mask of the head's axes to trace with."""
    import torch

    shape = [min(EXAMPLE[axis], most_tokens) if axis == "sequence" else EXAMPLE[axis] for axis in head.axes]
    return torch.ones(shape, dtype=torch.int64), torch.ones(shape, dtype=torch.int64)


def open_axes(head: Head, most_tokens: int) -> dict[int, Dim]:
    """The head's axes for `torch.export`, which wants to know how long each may be."""
    from torch.export import Dim

    most = MOST | {"sequence": most_tokens}
    return {axis: Dim(AXES[name], min=1, max=most[name]) for axis, name in enumerate(head.axes)}


def most_tokens(model: Module) -> int:
    """How many positions a model knows."""
    return int(next(rows for name, rows in model.named_parameters() if name.endswith(POSITIONS)).shape[0])
