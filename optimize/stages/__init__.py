"""The stages, in one explicit list. A stage is one file; its name is the file's and the YAML's."""

from __future__ import annotations

from optimize.interfaces import Stage
from optimize.stages import (
    attach_tokenizer,
    convert_fp16,
    convert_openvino,
    distill,
    export,
    fuse,
    prune,
    prune_vocabulary,
    prune_weights,
    quantize_dynamic,
    quantize_neural_compressor,
    quantize_openvino,
    quantize_static,
    reshape_openvino,
    train_quantized,
)

STAGES: dict[str, Stage] = {
    "attach_tokenizer": attach_tokenizer.STAGE,
    "convert_fp16": convert_fp16.STAGE,
    "convert_openvino": convert_openvino.STAGE,
    "distill": distill.STAGE,
    "export": export.STAGE,
    "fuse": fuse.STAGE,
    "prune": prune.STAGE,
    "prune_vocabulary": prune_vocabulary.STAGE,
    "prune_weights": prune_weights.STAGE,
    "quantize_dynamic": quantize_dynamic.STAGE,
    "quantize_neural_compressor": quantize_neural_compressor.STAGE,
    "quantize_openvino": quantize_openvino.STAGE,
    "quantize_static": quantize_static.STAGE,
    "reshape_openvino": reshape_openvino.STAGE,
    "train_quantized": train_quantized.STAGE,
}
