"""Which versions of ONNX a graph is written in; a runtime or server reads those up to its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from optimize.interfaces import Facts, Params

if TYPE_CHECKING:
    import onnx_ir as ir


class Versions(Params):
    """Parameters of a stage that writes a graph anew."""

    opset: int = Field(
        default=17,
        ge=14,
        le=21,
        description="Version of the ONNX operator set to write. 17 has LayerNormalization as one operator.",
    )
    ir_version: int | None = Field(
        default=None,
        ge=7,
        le=10,
        description="Version of the file format to write; by default the oldest that has the operator set, so that "
        "older runtimes and servers read it.",
    )


def settle(graph: ir.Model, versions: Versions) -> Facts:
    """Give a graph its version of the file format, in place; facts say which versions it is written in."""
    opset = graph.opset_imports[""]
    graph.ir_version = versions.ir_version or lowest_ir_version(opset)
    return {"opset": opset, "ir_version": graph.ir_version}


def lowest_ir_version(opset: int) -> int:
    """The oldest version of the file format that has this operator set."""
    import onnx

    version: int = onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", opset)])
    return version
