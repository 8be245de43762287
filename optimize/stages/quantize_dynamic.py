"""INT8 weights, activations quantized while the model runs: no calibration data is needed.

Linear layers go through `onnxruntime.quantization.quantize_dynamic`. Embedding tables, which are a
third of DistilBERT, get one scale per row: a word's vector is then off by at most 1/254 of its own
largest entry, whatever other words look like. Where the masked-LM projection is tied to
the embedding, both read the one INT8 table: a row's scale is also its output channel's scale.

Two choices depend on the CPU. Products of u8 activations and s8 weights are summed in pairs into 16
bits on CPUs without VNNI and saturate there (onnxruntime issue 6004), which 7-bit weights
(`reduce_range`) rule out: 2 * 255 * 64 < 2^15. With VNNI or AMX sums are 32 bits wide and
nothing is given away.
"""

from __future__ import annotations

import collections
import logging
from pathlib import Path
from typing import Any, Literal

import numpy as np

from optimize.artifact import Artifact
from optimize.errors import StageError
from optimize.interfaces import Context, Facts, Stage
from optimize.interfaces import Params as StageParams
from optimize.stages._graph import refuse_quantized

WIDE_SUMS = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp")
"""CPU features with which 8-bit products are summed in 32 bits."""


class Params(StageParams):
    """`auto` leaves a choice to the CPU's features; `embedding: false` keeps tables in FP32."""

    weight_type: Literal["auto", "int8", "uint8"] = "auto"
    per_channel: bool = True
    reduce_range: bool | Literal["auto"] = "auto"
    embedding: bool = True


def run(source: Artifact, out: Path, params: Params, context: Context) -> Facts:
    """Write the quantized `model.onnx`; facts say what was chosen, why, and how much of it fired."""
    import onnx

    refuse_quantized(source.path / "model.onnx", stage="quantize_dynamic")
    choice = choose(params, context.cpu_features)
    model = onnx.load(source.path / "model.onnx")
    facts: Facts = {**choice}
    if params.embedding:
        _require_lookups(model.graph)
        facts |= quantize_tables(model, bits=7 if choice["reduce_range"] == "yes" else 8)
    _quantize_linear(model, out / "model.onnx", params, choice)
    facts |= _count(out / "model.onnx")
    if not facts["quantized_matmuls"]:
        raise StageError("quantize_dynamic: no linear layer was quantized; check the graph that the stage before wrote")
    return facts


def choose(params: Params, cpu_features: tuple[str, ...]) -> dict[str, str]:
    """Weight type and range for this CPU, with the reason."""
    wide = sorted(set(WIDE_SUMS) & set(cpu_features))
    reduce = not wide if params.reduce_range == "auto" else params.reduce_range
    weight_type = "int8" if params.weight_type == "auto" else params.weight_type
    if params.reduce_range != "auto":
        reason = "as asked for"
    elif wide:
        reason = f"{wide[0]} sums in 32 bits"
    else:
        reason = "no VNNI: 16-bit sums would saturate"
    return {
        "weight_type": weight_type,
        "per_channel": "yes" if params.per_channel else "no",
        "reduce_range": "yes" if reduce else "no",
        "reduce_range_because": reason,
    }


def quantize_tables(model: Any, *, bits: int) -> Facts:
    """Give each embedding table one INT8 copy with a scale per row, shared with a tied projection.

    A table is a 2-D float initializer that a Gather looks up. Only a table that a projection
    multiplies with is held to `bits`; a mere look-up never sums and keeps 8.
    """
    from onnx import numpy_helper

    graph = model.graph
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    lookups = [node for node in graph.node if node.op_type == "Gather" and _is_table(initializers.get(node.input[0]))]
    tied = 0
    for name in dict.fromkeys(node.input[0] for node in lookups):
        projections = _tied_projections(graph, name)
        table = numpy_helper.to_array(initializers[name])
        limit = 2 ** ((bits if projections else 8) - 1) - 1
        rows, scales = quantize_rows(table, limit)
        graph.initializer.remove(initializers[name])
        graph.initializer.extend(
            [numpy_helper.from_array(rows, name + "_quantized"), numpy_helper.from_array(scales, name + "_scale")]
        )
        for node in [node for node in lookups if node.input[0] == name]:
            _replace(graph, [node], _lookup(node, name))
        for transpose, matmul in projections:
            _replace(graph, [transpose, matmul], _projection(transpose, matmul, name))
            tied += 1
    return {"quantized_tables": len({node.input[0] for node in lookups}), "tied_projections": tied}


def quantize_rows(table: np.ndarray[Any, Any], limit: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Symmetric INT8 rows [R, D] and their float32 scales [R]; a row of zeros has scale 1."""
    scales = (np.abs(table).max(axis=1) / limit).astype(np.float32)
    scales[scales == 0] = 1.0
    return np.clip(np.rint(table / scales[:, None]), -limit, limit).astype(np.int8), scales


def _require_lookups(graph: Any) -> None:
    if any(node.op_type == "EmbedLayerNormalization" for node in graph.node):
        raise StageError(
            "quantize_dynamic: the embedding's look-ups are fused with their LayerNorm; set 'fuse: {embedding: false}'"
        )


def _is_table(tensor: Any) -> bool:
    import onnx

    return tensor is not None and tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 2


def _tied_projections(graph: Any, table: str) -> list[tuple[Any, Any]]:
    """Pairs of the Transpose that reads the table and the MatMul that multiplies with it."""
    consumers: dict[str, list[Any]] = collections.defaultdict(list)
    for node in graph.node:
        for name in node.input:
            consumers[name].append(node)
    transposes = [node for node in consumers[table] if node.op_type == "Transpose"]
    return [
        (t, m)
        for t in transposes
        for m in consumers[t.output[0]]
        if m.op_type == "MatMul" and m.input[1] == t.output[0]
    ]


def _lookup(node: Any, table: str) -> list[Any]:
    from onnx import TensorProto, helper

    at = node.output[0]
    return [
        helper.make_node("Gather", [table + "_quantized", node.input[1]], [at + "_int8"], name=node.name + "_int8"),
        helper.make_node("Cast", [at + "_int8"], [at + "_cast"], to=TensorProto.FLOAT),
        helper.make_node("Gather", [table + "_scale", node.input[1]], [at + "_scale"], name=node.name + "_scale"),
        helper.make_node("Constant", [], [at + "_axis"], value_ints=[-1]),
        helper.make_node("Unsqueeze", [at + "_scale", at + "_axis"], [at + "_column"]),
        helper.make_node("Mul", [at + "_cast", at + "_column"], [at]),
    ]


def _projection(transpose: Any, matmul: Any, table: str) -> list[Any]:
    from onnx import TensorProto, helper

    x, at = matmul.input[0], matmul.output[0]
    return [
        helper.make_node("Transpose", [table + "_quantized"], [at + "_weight"], name=transpose.name, perm=[1, 0]),
        helper.make_node("DynamicQuantizeLinear", [x], [x + "_quantized", x + "_scale", x + "_zero"]),
        helper.make_node(
            "MatMulInteger",
            [x + "_quantized", at + "_weight", x + "_zero"],
            [at + "_int32"],
            name=matmul.name + "_quant",
        ),
        helper.make_node("Cast", [at + "_int32"], [at + "_cast"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [x + "_scale", table + "_scale"], [at + "_scale"]),
        helper.make_node("Mul", [at + "_cast", at + "_scale"], [at]),
    ]


def _replace(graph: Any, old: list[Any], new: list[Any]) -> None:
    """Put `new` where the last of `old` stood, which keeps the graph sorted."""
    place = max(list(graph.node).index(node) for node in old)
    for offset, node in enumerate(new):
        graph.node.insert(place + 1 + offset, node)
    for node in old:
        graph.node.remove(node)


def _quantize_linear(model: Any, path: Path, params: Params, choice: dict[str, str]) -> None:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quiet = logging.getLogger().manager.disable
    logging.disable(logging.WARNING)
    try:
        quantize_dynamic(
            model,
            path,
            op_types_to_quantize=["MatMul", "Attention"],
            per_channel=params.per_channel,
            reduce_range=choice["reduce_range"] == "yes",
            weight_type=QuantType.QInt8 if choice["weight_type"] == "int8" else QuantType.QUInt8,
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )
    finally:
        logging.disable(quiet)


def _count(path: Path) -> Facts:
    """What the written graph computes in INT8, and which products with weights stayed in float."""
    import onnx

    graph = onnx.load(path).graph
    weights = {tensor.name for tensor in graph.initializer}
    weights |= {node.output[0] for node in graph.node if node.op_type == "Transpose" and node.input[0] in weights}
    counts = collections.Counter(node.op_type for node in graph.node)
    left = sum(
        node.op_type in ("MatMul", "Gemm", "Attention") and bool(set(node.input) & weights) for node in graph.node
    )
    quantized = counts["MatMulInteger"] + counts["QAttention"]
    return {"quantized_matmuls": quantized, "float_matmuls": left}


STAGE = Stage(
    run=run,
    params=Params,
    takes="onnx",
    gives="onnx",
    needs=("onnxruntime", "onnx"),
    summary="INT8 weights, activations quantized at run time; embedding included",
    depends=frozenset({"cpu_features"}),
)
