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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from optimize.artifact import Artifact
from optimize.errors import StageError
from optimize.graphs.onnx import count_float_products, record, refuse_quantized, to_proto
from optimize.interfaces import Context, Facts, Stage, Trait, Traits
from optimize.interfaces import Params as StageParams
from optimize.quantization.tables import quantize_tables
from optimize.quantization.weights import choose_range
from optimize.runtimes.quiet import silent
from optimize.sentences.configs import SCOPE

if TYPE_CHECKING:
    import onnx_ir as ir


class Params(StageParams):
    """How weights are quantized; activations are rounded while the model runs."""

    weight_type: Literal["auto", "int8", "uint8"] = Field(
        default="auto", description="Type of the linear layers' weights. `auto` is `int8`."
    )
    per_channel: bool = Field(
        default=True,
        description="One scale for each output channel, in place of one for each matrix. It is more accurate.",
    )
    reduce_range: bool | Literal["auto"] = Field(
        default="auto",
        description="Hold weights to 7 bits, so that sums of 16 bits cannot overflow on CPUs without VNNI. `auto` "
        "does so where the CPU has neither VNNI nor AMX.",
    )
    embedding: bool = Field(
        default=True,
        description="Quantize the embedding tables as well, with one scale for each row. They are a third of a "
        "DistilBERT 768 wide.",
    )


@dataclass(frozen=True)
class Choice:
    """How weights become INT8 on a CPU, and why their range is reduced or not."""

    weight_type: str
    per_channel: bool
    reduce_range: bool
    reduce_range_because: str

    def facts(self) -> Facts:
        """The choice as the stage states it."""
        return asdict(self)


def run(source: Artifact, out: Path, params: Params, context: Context) -> Facts:
    """Write the quantized `model.onnx`; facts say what was chosen, why, and how much of it fired."""
    import onnx_ir

    model = onnx_ir.load(source.path / "model.onnx")
    refuse_quantized(model, stage="quantize_dynamic")
    choice = choose(params, context.cpu_features)
    facts = choice.facts()
    if params.embedding:
        _require_lookups(model.graph)
        facts |= quantize_tables(model, reduce_range=choice.reduce_range, project=_projection)
    _quantize_linear(model, out / "model.onnx", choice)
    facts |= _count(out / "model.onnx")
    if not facts["quantized_matmuls"]:
        raise StageError("quantize_dynamic: no linear layer was quantized; check the graph that the stage before wrote")
    return facts


def choose(params: Params, cpu_features: tuple[str, ...]) -> Choice:
    """Weight type and range for this CPU, with the reason."""
    reduce_range, because = choose_range(params.reduce_range, cpu_features)
    weight_type = "int8" if params.weight_type == "auto" else params.weight_type
    return Choice(weight_type, params.per_channel, reduce_range, because)


def _require_lookups(graph: ir.Graph) -> None:
    if any(node.op_type == "EmbedLayerNormalization" for node in graph):
        raise StageError(
            "quantize_dynamic: the embedding's look-ups are fused with their LayerNorm; set 'fuse: {embedding: false}'"
        )


def _projection(tape: ir.tape.Tape, product: ir.Node, rows: ir.Value, scales: ir.Value) -> ir.Value:
    """Multiply with the INT8 table as ONNX Runtime's dynamic quantization does with other weights."""
    import onnx_ir

    x, at, turn = product.inputs[0], product.outputs[0].name, product.inputs[1].producer().name
    columns = record(tape, "Transpose", [rows], f"{at}_weight", name=turn, perm=[1, 0])
    quantized = [onnx_ir.val(f"{x.name}_{what}") for what in ("quantized", "scale", "zero")]
    integers, scale, zero = tape.op_multi_out("DynamicQuantizeLinear", [x], outputs=quantized, name="")
    sums = record(tape, "MatMulInteger", [integers, columns, zero], f"{at}_int32", name=f"{product.name}_quant")
    cast = record(tape, "Cast", [sums], f"{at}_cast", to=onnx_ir.DataType.FLOAT)
    step = record(tape, "Mul", [scale, scales], f"{at}_scale")
    return record(tape, "Mul", [cast, step], at)


def _quantize_linear(model: ir.Model, path: Path, choice: Choice) -> None:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    kept = [node.name for node in model.graph if node.name.startswith(f"/{SCOPE}/")]
    with silent():
        quantize_dynamic(
            to_proto(model),
            path,
            op_types_to_quantize=["MatMul", "Attention"],
            per_channel=choice.per_channel,
            reduce_range=choice.reduce_range,
            # ONNX Runtime makes a MatMul of a Gemm first, and names it so.
            nodes_to_exclude=[*kept, *(f"{name}_MatMul" for name in kept)],
            weight_type=QuantType.QInt8 if choice.weight_type == "int8" else QuantType.QUInt8,
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )


def _count(path: Path) -> Facts:
    """What the written graph computes in INT8, and which products with weights stayed in float."""
    import onnx_ir

    graph = onnx_ir.load(path).graph
    counts = collections.Counter(node.op_type for node in graph)
    quantized = counts["MatMulInteger"] + counts["QAttention"]
    return {"quantized_matmuls": quantized, "float_matmuls": count_float_products(graph)}


def traits(params: Params) -> Traits:
    """Weights have to be in FP32, and an embedding that is to be quantized looked up by itself."""
    refuses: dict[Trait, str] = {
        "quantized": "leave one of them out",
        "in FP16": "leave out 'convert_fp16', whose place INT8 takes",
    }
    if params.embedding:
        refuses["fused with its embedding"] = "set 'fuse: {embedding: false}'"
    return Traits(makes=frozenset({"quantized"}), refuses=refuses)


STAGE = Stage(
    run=run,
    params=Params,
    takes="onnx",
    gives="onnx",
    needs=("onnxruntime", "onnx", "onnx-ir"),
    summary="INT8 weights, activations quantized at run time; embedding included",
    depends=lambda _: frozenset({"cpu_features"}),
    traits=traits,
)
