"""Export to ONNX through optimum, and prove that the graph computes what PyTorch computes.

Text classification and multiple choice read only the first token of the last layer. With
`readout_slice`, that layer computes queries, output projection, both LayerNorms and the FFN for
that token alone; keys and values stay those of all tokens. Nothing is approximated: each output
row of a transformer layer depends on its own query only. The slice is made in PyTorch before
tracing, and the exported graph is compared with the unsliced model.

A sentence encoder's graph holds its modules, so that the embedding comes out of it. sentence-transformers itself makes
the embedding of the hidden states, which then have to come out as well; then no token of the last layer is left out.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from optimize.artifact import Artifact
from optimize.checkpoint import load_model
from optimize.evaluate.parity import check_parity
from optimize.graphs.forwards import slice_readout, use_lean_attention
from optimize.graphs.lean import copy_batch_axis, part_residual_sums
from optimize.graphs.onnx import READOUT_SLICE, save
from optimize.interfaces import Context, Facts, Stage, Traits
from optimize.interfaces import Params as StageParams
from optimize.sentences.configs import OUTPUT, TOKENS
from optimize.sentences.modules import traced

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Params(StageParams):
    """What is written, and how it is proven."""

    opset: int = Field(
        default=17,
        ge=14,
        le=21,
        description="Version of the ONNX operator set to write. 17 has LayerNormalization as one operator.",
    )
    readout_slice: bool = Field(
        default=True,
        description="Compute the last layer for the first token alone, where the head reads no other (text "
        "classification, multiple choice). The answers are the same; `fuse` leaves the attention of "
        "such a layer in parts.",
    )
    lean: bool = Field(
        default=False,
        description="Write the attention and the residual sums in the form that runs fastest on CPUs. The stage "
        "`fuse` does not know that form.",
    )
    token_embeddings: bool = Field(
        default=True,
        description="Of a sentence encoder, give out the hidden states of all tokens beside the embedding: "
        "sentence-transformers reads them. `false` gives the embedding alone, which takes less time where only the "
        "first token is pooled. Other models have no embedding, and are not changed by it.",
    )
    tolerance: float = Field(
        default=1e-4,
        gt=0,
        allow_inf_nan=False,
        description="Largest difference from PyTorch that is accepted, relative to the largest output. A larger one "
        "fails the stage.",
    )


def run(source: Artifact, out: Path, params: Params, context: Context) -> Facts:
    """Write `model.onnx` with batch and sequence (and choices) as dynamic axes."""
    model = load_model(source.path, context.head.auto_class)
    if params.lean:
        use_lean_attention(model)
    tokens = params.token_embeddings and OUTPUT in context.head.outputs
    sliced = params.readout_slice and context.head.reads == "first token" and not tokens
    if sliced:
        slice_readout(model)
    if OUTPUT in context.head.outputs:
        _export_encoder(model, out / "model.onnx", (TOKENS, OUTPUT) if tokens else (OUTPUT,), opset=params.opset)
    else:
        _export(model, out, task=context.head.name, opset=params.opset)
    _finish(out / "model.onnx", sliced=sliced, lean=params.lean)
    difference = check_parity(out, source, context, stage="export", tolerance=params.tolerance)
    facts: Facts = {"max_difference": difference, "readout_slice": sliced, "opset": params.opset}
    return facts | ({"token_embeddings": tokens} if OUTPUT in context.head.outputs else {})


def _finish(path: Path, *, sliced: bool, lean: bool) -> None:
    """Make it lean, and note the slice in the metadata: `fuse` expects another count of Attention then."""
    import onnx_ir
    from onnx_ir.passes.common import IdentityEliminationPass, RemoveUnusedNodesPass

    model = onnx_ir.load(path)
    if lean:
        # The exporter gives equal biases one initializer, read through Identity.
        IdentityEliminationPass()(model)
        copy_batch_axis(model)
        part_residual_sums(model)
        RemoveUnusedNodesPass()(model)
    model.metadata_props[READOUT_SLICE] = "yes" if sliced else "no"
    save(model, path)


def _export(model: PreTrainedModel, out: Path, *, task: str, opset: int) -> None:
    """Trace and write; where accelerate is installed, optimum lets a tied projection read the table itself."""
    from optimum.exporters.onnx import onnx_export_from_model

    logging.getLogger("optimum").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        onnx_export_from_model(model, out, task=task, opset=opset, do_validation=False)


def _export_encoder(model: PreTrainedModel, path: Path, outputs: Sequence[str], *, opset: int) -> None:
    """Trace a sentence encoder and write it, with these outputs; optimum knows its hidden states alone."""
    import torch

    inputs, axes = ("input_ids", "attention_mask"), {0: "batch_size", 1: "sequence_length"}
    shapes = dict.fromkeys(inputs, axes) | {TOKENS: axes, OUTPUT: {0: "batch_size"}}
    example = torch.ones((2, 16), dtype=torch.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            traced(model, outputs),
            (example, example),
            str(path),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes={name: shapes[name] for name in (*inputs, *outputs)},
            opset_version=opset,
            dynamo=False,
        )


STAGE = Stage(
    run=run,
    params=Params,
    takes="torch",
    gives="onnx",
    needs=("accelerate", "optimum", "optimum-onnx", "torch", "transformers", "onnx", "onnx-ir"),
    summary="PyTorch to ONNX, with parity proven and the readout slice",
    traits=lambda params: Traits(makes=frozenset({"lean"} if params.lean else ())),
)
