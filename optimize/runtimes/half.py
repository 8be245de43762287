"""FP16 graphs on a CPU, rounded as a GPU rounds them.

ONNX Runtime 1.31.1 has few FP16 kernels for CPUs. It computes the other nodes in FP32 and takes out the casts between
them, so that what overflows on a GPU comes out finite there: proof of nothing. Here every FP16 result is rounded to
FP16 and computed on in FP32, by casts that the graph itself asks for and that therefore stay. That is what a GPU does,
save for the insides of fused operators. It is also faster: 17 ms where the FP16 graph takes 64 (1x128, 384 wide).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimize.interfaces import Head, Session
from optimize.runtimes.onnx_runtime import MODEL_FILE, open_on_cpu, tensor_types

if TYPE_CHECKING:
    import onnx

FLOAT, FLOAT16 = 1, 10  # onnx.TensorProto.DataType


def open_rounded(folder: Path, threads: int, head: Head, *, quantized_in_float: bool = False) -> Session:
    """Open an ONNX artifact on the CPU provider; if it has FP16 in it, in the form that rounds.

    `quantized_in_float` computes with dequantized numbers between QuantizeLinear and DequantizeLinear, as other
    runtimes may, rather than with the CPU's own integer operators.
    """
    import onnx

    path = folder / MODEL_FILE
    settings = {"session.disable_quant_qdq": "1"} if quantized_in_float else {}
    model = onnx.load(path)
    if not holds_half(model):
        return open_on_cpu(path, threads, head, where=folder.name, settings=settings)
    round_in_float(model)
    return open_on_cpu(model.SerializeToString(), threads, head, where=folder.name, settings=settings)


def holds_half(model: onnx.ModelProto) -> bool:
    """Whether any weight of a graph is stored in FP16."""
    return any(tensor.data_type == FLOAT16 for tensor in model.graph.initializer)


def round_in_float(model: onnx.ModelProto) -> None:
    """Turn every FP16 tensor into an FP32 one that holds an FP16 number, in place."""
    from onnx import helper

    half = {name for name, kind in tensor_types(model).items() if kind == FLOAT16}
    outputs = {value.name for value in model.graph.output}
    for tensor in model.graph.initializer:
        _widen(tensor)
    nodes: list[Any] = []
    for node in model.graph.node:
        for attribute in node.attribute:
            _widen(attribute.t)
        nodes.append(node)
        for index, name in enumerate(node.output):
            if name in half and node.op_type != "Constant":
                # The rounded value keeps the name that the other nodes read.
                node.output[index] = f"{name}_unrounded"
                nodes += [
                    helper.make_node("Cast", [f"{name}_unrounded"], [f"{name}_half"], to=FLOAT16),
                    helper.make_node("Cast", [f"{name}_half"], [name], to=FLOAT),
                ]
    del model.graph.node[:], model.graph.value_info[:]
    model.graph.node.extend(nodes)
    for value in model.graph.output:
        if value.name in outputs & half:
            value.type.tensor_type.elem_type = FLOAT


def _widen(tensor: Any) -> None:
    import numpy as np
    from onnx import numpy_helper

    if tensor.data_type == FLOAT16:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
