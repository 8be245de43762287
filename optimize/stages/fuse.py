"""Fuse the graph with ONNX Runtime's transformers optimizer, and check that it did.

Fusion is pattern matching: when transformers changes how it writes attention, patterns stop
firing without a word. So the counts that the model's geometry implies are required. The attention
mask is kept in its raw form, because the optimizer's default counts its ones and then assumes that
all padding is on the right (onnxruntime issue 18945 is of this family); parity with PyTorch is
proven again, left padding and holes included. Layers may have been pruned to numbers of heads of their
own: the optimizer then reads each number off the graph, and those that it found are checked.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from optimize.artifact import Artifact
from optimize.checkpoint import pruned_sizes, read_config
from optimize.errors import StageError
from optimize.evaluate.parity import check_parity
from optimize.graphs.onnx import READOUT_SLICE, refuse_quantized
from optimize.interfaces import Context, Facts, Head, Stage, Traits
from optimize.interfaces import Params as StageParams

if TYPE_CHECKING:
    import onnx_ir as ir
    from onnxruntime.transformers.onnx_model_bert import BertOnnxModel


class Params(StageParams):
    """What is fused, and how it is proven."""

    embedding: bool = Field(
        default=True,
        description="Fuse the embedding's look-ups with their LayerNorm, which suits GPUs. Set it to `false` before "
        "`quantize_dynamic`, which needs the look-ups by themselves.",
    )
    tolerance: float = Field(
        default=1e-4,
        gt=0,
        allow_inf_nan=False,
        description="Largest difference from PyTorch that is accepted, relative to the largest output. A larger one "
        "fails the stage.",
    )


def run(source: Artifact, out: Path, params: Params, context: Context) -> Facts:
    """Write the fused `model.onnx`; facts are the counts of fused operators."""
    import onnx_ir

    config = read_config(source.path)
    given = onnx_ir.load(source.path / "model.onnx")
    refuse_quantized(given, stage="fuse")
    fused = _optimize(source.path / "model.onnx", config, embedding=params.embedding)
    counts = {name: int(count) for name, count in fused.get_fused_operator_statistics().items()}
    sliced = given.metadata_props.get(READOUT_SLICE) == "yes"
    expected = expected_counts(config, sliced=sliced, embedding=params.embedding, head=context.head)
    check_counts(counts, expected)
    _check_heads(onnx_ir.from_proto(fused.model), config)
    fused.save_model_to_file(str(out / "model.onnx"))
    difference = check_parity(out, source, context, stage="fuse", tolerance=params.tolerance)
    return {**{name: count for name, count in counts.items() if count}, "max_difference": difference}


def expected_counts(config: dict[str, Any], *, sliced: bool, embedding: bool, head: Head) -> dict[str, int]:
    """How often each operator must have been fused in a DistilBERT of this geometry.

    A last layer with the readout slice has another shape of attention, which stays as it is. The
    masked-LM head has an activation of its own.
    """
    layers = config["n_layers"]
    activations = layers + head.activations
    return {
        "EmbedLayerNormalization": int(embedding),
        "Attention": layers - 1 if sliced else layers,
        "SkipLayerNormalization": 2 * layers,
        "BiasGelu": activations if config["activation"] == "gelu" else 0,
    }


def check_counts(counts: dict[str, int], expected: dict[str, int]) -> None:
    """Refuse a graph in which a pattern fired less often than it must."""
    for name, count in expected.items():
        if counts.get(name, 0) < count:
            raise StageError(
                f"fuse: {name} fused {counts.get(name, 0)} times where the model has {count}; "
                "leave out 'fuse', or use library versions of constraints.txt"
            )


def _check_heads(fused: ir.Model, config: dict[str, Any]) -> None:
    """Refuse fused attention of a pruned model in which a layer has not its own number of heads."""
    wanted = [size.heads for size in pruned_sizes(config, where="fuse")]
    found = [node.attributes.get_int("num_heads") for node in fused.graph if node.op_type == "Attention"]
    if wanted and found != wanted[: len(found)]:
        raise StageError(f"fuse: attention fused with {found} heads where the layers have {wanted}; leave out 'fuse'")


def _optimize(graph: Path, config: dict[str, Any], *, embedding: bool) -> BertOnnxModel:
    from onnxruntime.transformers import optimizer
    from onnxruntime.transformers.fusion_options import FusionOptions

    for name in ("onnxruntime.transformers", "fusion_attention"):
        logging.getLogger(name).setLevel(logging.ERROR)
    pruned = bool(pruned_sizes(config, where="fuse"))
    options = FusionOptions("bert")
    options.use_raw_attention_mask(True)
    options.enable_embed_layer_norm = embedding
    return optimizer.optimize_model(
        str(graph),
        model_type="bert",
        num_heads=0 if pruned else config["n_heads"],
        hidden_size=0 if pruned else config["dim"],
        optimization_options=options,
        opt_level=0,
    )


def traits(params: Params) -> Traits:
    """Fusion looks for patterns of plain FP32 operators, and for the attention that transformers writes."""
    return Traits(
        makes=frozenset({"fused", "fused with its embedding"} if params.embedding else {"fused"}),
        refuses={
            "lean": "set 'export: {lean: false}', or leave out 'fuse'",
            "fused": "leave one of them out",
            "quantized": "put 'fuse' before it, or leave 'fuse' out",
            "in FP16": "put 'fuse' before it",
        },
    )


STAGE = Stage(
    run=run,
    params=Params,
    takes="onnx",
    gives="onnx",
    needs=("onnxruntime", "onnx"),
    summary="fused attention, LayerNorm and GELU; counts required, right for any mask",
    traits=traits,
)
