"""An exported ONNX graph as OpenVINO IR, proven to compute the same.

OpenVINO would take the ONNX file as it is and convert it at every start; as IR it starts at once, and NNCF and
optimum-intel read it. Its own transformations fuse the attention of each layer into one operator.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from optimize.artifact import Artifact
from optimize.evaluate.parity import check_parity
from optimize.graphs.onnx import refuse_quantized
from optimize.graphs.openvino import count_operators
from optimize.interfaces import Context, Facts, Stage, Traits
from optimize.interfaces import Params as StageParams
from optimize.runtimes.openvino import MODEL_FILE, load_openvino

FP16_TOLERANCE = 1e-2


class Params(StageParams):
    """How weights are stored, and how the result is proven."""

    weights: Literal["fp32", "fp16"] = Field(
        default="fp32",
        description="Type that weights are stored in. `fp16` halves the file and rounds weights; what is computed "
        "in follows from the target's `precision`.",
    )
    tolerance: float | None = Field(
        default=None,
        gt=0,
        description="Largest difference from the ONNX graph that is accepted, relative to the largest output. Left "
        "out, it is 1e-4, or 1e-2 where weights are stored in FP16.",
    )


def run(source: Artifact, out: Path, params: Params, context: Context) -> Facts:
    """Write `openvino_model.xml` and `.bin`, with the dynamic axes of the source."""
    import onnx_ir

    refuse_quantized(onnx_ir.load(source.path / "model.onnx"), stage="convert_openvino")
    openvino = load_openvino()
    model = openvino.convert_model(source.path / "model.onnx")
    # OpenVINO's own default is to round weights to FP16 in the file.
    openvino.save_model(model, out / MODEL_FILE, compress_to_fp16=params.weights == "fp16")
    tolerance = params.tolerance or (FP16_TOLERANCE if params.weights == "fp16" else 1e-4)
    difference = check_parity(out, source, context, stage="convert_openvino", tolerance=tolerance, kind="openvino")
    return {
        "max_difference": difference,
        "weights": params.weights,
        "fused_attentions": count_operators(model)["ScaledDotProductAttention"],
    }


def traits(_: Params) -> Traits:
    """OpenVINO has its own quantizer and its own 16-bit weights; ONNX Runtime's forms of them are not converted."""
    return Traits(
        refuses={
            "quantized": "quantize with 'quantize_openvino' after it",
            "in FP16": "leave out 'convert_fp16', and set 'convert_openvino: {weights: fp16}'",
        }
    )


STAGE = Stage(
    run=run,
    params=Params,
    takes="onnx",
    gives="openvino",
    needs=("openvino",),
    summary="OpenVINO IR of the exported graph, outputs proven",
    traits=traits,
)
