"""What a model's graph is called beside others of the same checkpoint, as the Hub's readers name them.

sentence-transformers and optimum call ONNX graphs after the type of their weights and the CPU that they are for, as in
`onnx/model_qint8_avx512_vnni.onnx`, and OpenVINO's `openvino/openvino_model_qint8_quantized.xml`; transformers.js takes
`onnx/model_fp16.onnx` for its dtype `fp16`. Where they have no word, ours is added.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from optimize.manifest import Manifest
from optimize.quantization.weights import WIDE_SUMS
from optimize.report.remarks import INTEGERS, is_int8
from optimize.report.suited import held_back

STATIC = ("quantize_static", "quantize_neural_compressor", "train_quantized")
"""Stages whose activations have ranges that were fixed before; others find them text by text."""
FEATURES = {"asimddp": "arm64"}
"""CPUs by a name that readers have for them."""


def graph_name(manifest: Manifest) -> PurePosixPath:
    """Folder and file of a run's graph."""
    form = "_".join(["model", *_form(manifest)])
    if manifest.stages[-1].artifact.kind == "onnx":
        return PurePosixPath("onnx", f"{form}.onnx")
    return PurePosixPath("openvino", f"openvino_{form}.xml")


def _form(manifest: Manifest) -> list[str]:
    last = manifest.measurements[-1]
    if not is_int8(last):
        return ["fp16"] if "float16" in last.size.by_dtype else []
    held = {name: size for name, size in last.size.by_dtype.items() if name in INTEGERS}
    weights = f"q{max(held, key=lambda name: held[name])}"
    if manifest.stages[-1].artifact.kind == "openvino":
        modes = [record.facts.get("mode") for record in manifest.stages]
        return [weights, "weights" if "weights" in modes else "quantized"]
    how = ["static"] if any(record.stage in STATIC for record in manifest.stages) else []
    return [*how, weights, *_cpu(manifest)]


def _cpu(manifest: Manifest) -> list[str]:
    """For which CPU the weights are right; none where any is, because nothing is summed in integers."""
    held = held_back(manifest)
    if manifest.request.target != "cpu":
        return [manifest.request.target]
    if held is None:
        return []
    found = [feature for feature in WIDE_SUMS if feature in manifest.environment.features]
    # Weights that were held back are right on every CPU; AVX2 is the one that needed it.
    return ["avx2"] if held or not found else [FEATURES.get(found[0], found[0])]
