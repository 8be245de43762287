"""Intel Neural Compressor's PT2E path: PyTorch's tracer, observers, and what comes out as ONNX.

`neural_compressor.torch` 3.x traces with `torch.export`, lets torchao's X86InductorQuantizer put an
observer at what each linear layer reads (u8) and at its weight (s8), and keeps everything else in
float. `torch.onnx.export(dynamo=True)` writes the result with QuantizeLinear and DequantizeLinear.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from optimize.checkpoint import load_model, read_config
from optimize.evaluate.predict import collate
from optimize.graphs.forwards import answering, write_out
from optimize.graphs.tracing import INPUTS, example, open_axes
from optimize.interfaces import Feature, Head

if TYPE_CHECKING:
    import onnx_ir as ir
    from torch import Tensor
    from torch.fx import GraphModule
    from torch.nn import Module


def trace(folder: Path, head: Head, *, readout_slice: bool) -> GraphModule:
    """The checkpoint as a graph of PyTorch operators, for any batch, length and number of choices."""
    from neural_compressor.torch.export import export

    config = read_config(folder)
    model, most_tokens = load_model(folder, head.auto_class), int(config["max_position_embeddings"])
    write_out(model, sliced=readout_slice)
    axes = open_axes(head, most_tokens)
    module = answering(model, head.outputs).eval()
    return export(module, example(head, most_tokens), dynamic_shapes=(axes, axes))


def autotune(
    model: GraphModule,
    settings: Sequence[Mapping[str, str | bool]],
    *,
    samples: Sequence[Feature],
    weight_limit: int,
    score: Callable[[GraphModule], float],
) -> None:
    """Quantize by each of the settings until one scores 1; `score` is given the converted graph.

    Neural Compressor stops at the first score that is no worse than the baseline's, which is 1 here.
    """
    from neural_compressor.torch.quantization import StaticQuantConfig, TuningConfig, autotune

    def calibrate(prepared: GraphModule) -> None:
        _narrow_weights(prepared, limit=weight_limit)
        for feature in samples:
            prepared(*_tensors(feature))

    autotune(
        model,
        TuningConfig([StaticQuantConfig(**setting) for setting in settings], tolerable_loss=0.0),
        eval_fn=lambda found: score(found) if getattr(found, "is_quantized", False) else 1.0,
        run_fn=calibrate,
    )


def write_onnx(model: GraphModule, head: Head, *, opset: int) -> ir.Model:
    """The converted graph as an ONNX model; weights are still FP32, each before a QuantizeLinear."""
    import torch

    program = torch.onnx.export(
        model,
        example(head, model.dynamic_shapes[0][head.axes.index("sequence")].max),
        dynamo=True,
        opset_version=opset,
        input_names=list(INPUTS),
        output_names=list(head.outputs),
        dynamic_shapes=model.dynamic_shapes,
        verbose=False,
    )
    return program.model


def _narrow_weights(prepared: Module, *, limit: int) -> None:
    """Hold the integers of weights to -limit..limit.

    Neural Compressor 3.10 always takes -128..127 and has no `reduce_range`, but its observers have a range.
    """
    import torch

    for module in prepared.modules():
        if getattr(module, "dtype", None) is torch.int8:
            module.quant_min, module.quant_max = -limit, limit


def _tensors(feature: Feature) -> tuple[Tensor, ...]:
    """One feature as a batch, unpadded: padding would widen the ranges with what no head reads."""
    import torch

    feed = collate([feature], pad_id=0)
    return tuple(torch.from_numpy(feed[name]) for name in INPUTS)
