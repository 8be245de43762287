"""FP16 graphs on a CPU, rounded as a GPU rounds them.

ONNX Runtime 1.31.1 has few FP16 kernels for CPUs. It computes the other nodes in FP32 and takes out the casts between
them, so that what overflows on a GPU comes out finite there: proof of nothing. Here every FP16 result is rounded to
FP16 and computed on in FP32, by casts that the graph itself asks for and that therefore stay. That is what a GPU does,
save for the insides of fused operators. It is also faster: 17 ms where the FP16 graph takes 64 (1x128, 384 wide).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from optimize.interfaces import Head, Session
from optimize.runtimes.onnx_runtime import MODEL_FILE, open_on_cpu, tensor_types

if TYPE_CHECKING:
    import onnx_ir as ir

FLOAT, FLOAT16 = 1, 10  # onnx.TensorProto.DataType


def open_rounded(folder: Path, threads: int, head: Head, *, quantized_in_float: bool = False) -> Session:
    """Open an ONNX artifact on the CPU provider; if it has FP16 in it, in the form that rounds.

    `quantized_in_float` computes with dequantized numbers between QuantizeLinear and DequantizeLinear, as other
    runtimes may, rather than with the CPU's own integer operators.
    """
    import onnx_ir

    path = folder / MODEL_FILE
    settings = {"session.disable_quant_qdq": "1"} if quantized_in_float else {}
    model = onnx_ir.load(path)
    if not holds_half(model):
        return open_on_cpu(path, threads, head, where=folder.name, settings=settings)
    round_in_float(model)
    rounded = onnx_ir.to_proto(model)
    # What was noted of values between nodes states FP16.
    del rounded.graph.value_info[:]
    return open_on_cpu(rounded.SerializeToString(), threads, head, where=folder.name, settings=settings)


def holds_half(model: ir.Model) -> bool:
    """Whether any weight of a graph is stored in FP16."""
    return any(weight.dtype == FLOAT16 for weight in model.graph.initializers.values())


def round_in_float(model: ir.Model) -> None:
    """Turn every FP16 tensor into an FP32 one that holds an FP16 number, in place."""
    import onnx_ir

    types = tensor_types(onnx_ir.to_proto(model))
    for weight in model.graph.initializers.values():
        if weight.dtype == FLOAT16:
            weight.const_value = _widened(weight.const_value)
            weight.type = onnx_ir.TensorType(onnx_ir.DataType.FLOAT)
    for node in tuple(model.graph):
        _widen_attributes(node)
        for value in node.outputs:
            if types.get(value.name) == FLOAT16 and node.op_type != "Constant":
                _round(value)


def _round(value: ir.Value) -> None:
    """Let all that reads a value read it rounded to FP16, under its old name."""
    import onnx_ir

    maker, name = value.producer(), value.name
    rounded = onnx_ir.val(name, onnx_ir.DataType.FLOAT, value.shape)
    # The readers first: the cast that is made below has to go on reading the value itself.
    value.replace_all_uses_with(rounded, replace_graph_outputs=True)
    value.name = f"{name}_unrounded"
    narrow = onnx_ir.node("Cast", [value], {"to": FLOAT16}, outputs=[onnx_ir.val(f"{name}_half")], name="")
    widen = onnx_ir.node("Cast", narrow.outputs, {"to": FLOAT}, outputs=[rounded], name="")
    maker.graph.insert_after(maker, [narrow, widen])


def _widen_attributes(node: ir.Node) -> None:
    import onnx_ir

    for name, attribute in node.attributes.items():
        if attribute.type == onnx_ir.AttributeType.TENSOR and attribute.as_tensor().dtype == FLOAT16:
            node.attributes[name] = onnx_ir.AttrTensor(name, _widened(attribute.as_tensor()))


def _widened(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    import numpy as np
    import onnx_ir

    return onnx_ir.tensor(tensor.numpy().astype(np.float32), name=tensor.name)
