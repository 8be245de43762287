"""The stages, in one explicit list. A stage is one file; its name is the file's and the YAML's."""

from __future__ import annotations

from optimize.interfaces import Stage
from optimize.stages import (
    export,
    fuse,
    quantize_dynamic,
    quantize_neural_compressor,
    quantize_static,
    train_quantized,
)

STAGES: dict[str, Stage] = {
    "export": export.STAGE,
    "fuse": fuse.STAGE,
    "quantize_dynamic": quantize_dynamic.STAGE,
    "quantize_neural_compressor": quantize_neural_compressor.STAGE,
    "quantize_static": quantize_static.STAGE,
    "train_quantized": train_quantized.STAGE,
}
