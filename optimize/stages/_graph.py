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


WIDE_SUMS = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp")
"""CPU features with which 8-bit products are summed in 32 bits."""


def wide_sums(asked: bool | str, cpu_features: tuple[str, ...]) -> tuple[bool, str]:
    """Whether INT8 products are summed in 32 bits, and how that is known; "auto" asks the CPU."""
    if isinstance(asked, bool):
        return asked, "as asked for"
    found = sorted(set(WIDE_SUMS) & set(cpu_features))
    if found:
        return True, f"{found[0]} sums in 32 bits"
    return False, "no VNNI: 16-bit sums would saturate"


def refuse_quantized(graph: Path, *, stage: str) -> None:
    """Refuse a graph that holds quantized operators already."""
    import onnx

    model = onnx.load(graph, load_external_data=False)
    found = sorted({node.op_type for node in model.graph.node} & QUANTIZED_OPERATORS)
    if found:
        raise StageError(
            f"{stage}: the model is quantized already ({', '.join(found)}); start from the FP32 checkpoint"
        )
