"""What several stages need to know of an ONNX graph."""

from __future__ import annotations

from pathlib import Path

from optimize.errors import StageError

READOUT_SLICE = "distilbert_optimize.readout_slice"
"""Metadata key: whether the last layer computes only the first token ("yes" or "no")."""

QUANTIZED_OPERATORS = frozenset(
    {
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "QAttention",
        "QEmbedLayerNormalization",
        "QLinearMatMul",
        "QuantizeLinear",
        "DequantizeLinear",
    }
)


def refuse_quantized(graph: Path, *, stage: str) -> None:
    """Refuse a graph that holds quantized operators already."""
    import onnx

    model = onnx.load(graph, load_external_data=False)
    found = sorted({node.op_type for node in model.graph.node} & QUANTIZED_OPERATORS)
    if found:
        raise StageError(
            f"{stage}: the model is quantized already ({', '.join(found)}); start from the FP32 checkpoint"
        )
