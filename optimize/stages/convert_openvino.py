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
from optimize.interfaces import Context, Facts, Stage
from optimize.interfaces import Params as StageParams
from optimize.runtimes.openvino import MODEL_FILE, load_openvino

FP16_TOLERANCE = 1e-2


class Params(StageParams):
    """`weights: fp16` halves the file; they are computed with as the target's precision says.

    `tolerance` bounds the difference from the ONNX graph, relative to the largest output: 1e-4 by default, and
    1e-2 where weights are rounded.
    """

    weights: Literal["fp32", "fp16"] = "fp32"
    tolerance: float | None = Field(default=None, gt=0)


def run(source: Artifact, out: Path, params: Params, context: Context) -> Facts:
    """Write `openvino_model.xml` and `.bin`, with the dynamic axes of the source."""
    refuse_quantized(source.path / "model.onnx", stage="convert_openvino")
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


STAGE = Stage(
    run=run,
    params=Params,
    takes="onnx",
    gives="openvino",
    needs=("openvino",),
    summary="OpenVINO IR of the exported graph, outputs proven",
)
