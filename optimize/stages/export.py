"""Export to ONNX, and prove that the graph computes what PyTorch computes.

Text classification and multiple choice read only the first token of the last layer. With
`readout_slice`, that layer computes queries, output projection, both LayerNorms and the FFN for
that token alone; keys and values stay those of all tokens. Nothing is approximated: each output
row of a transformer layer depends on its own query only. The slice is made in PyTorch before
tracing, and the exported graph is compared with the unsliced model, as transformers runs it.

A sentence encoder's graph holds its modules, so that the embedding comes out of it. sentence-transformers itself makes
the embedding of the hidden states, which then have to come out as well; then no token of the last layer is left out.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from optimize.artifact import Artifact
from optimize.checkpoint import load_model
from optimize.evaluate.parity import check_parity
from optimize.graphs.forwards import answering, write_out
from optimize.graphs.lean import part_residual_sums
from optimize.graphs.onnx import READOUT_SLICE, save
from optimize.graphs.tracing import Exporter, trace
from optimize.graphs.versions import Versions, settle
from optimize.interfaces import Context, Facts, Head, Stage, Traits
from optimize.sentences.configs import OUTPUT, TOKENS


class Params(Versions):
    """What is written, and how it is proven."""

    exporter: Exporter = Field(
        default="torchscript",
        description="Who writes the graph down: PyTorch's tracer (`torchscript`), its newer exporter (`dynamo`, which "
        "takes several times as long and writes operator set 18 or later), or the one of optimum (`optimum`), where "
        "that is installed.",
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
    encodes = OUTPUT in context.head.outputs
    tokens = encodes and params.token_embeddings
    outputs = (TOKENS, *context.head.outputs) if tokens else context.head.outputs
    sliced = params.readout_slice and context.head.reads == "first token" and not tokens
    write_out(model, sliced=sliced, lean=params.lean)
    graph = trace(answering(model, outputs), context.head, outputs, exporter=params.exporter, opset=params.opset)
    if params.lean:
        part_residual_sums(graph)
    versions = settle(graph, params)
    # `fuse` expects another count of Attention where a layer is sliced.
    graph.metadata_props[READOUT_SLICE] = "yes" if sliced else "no"
    save(graph, out / "model.onnx")
    difference = check_parity(out, source, context, stage="export", tolerance=params.tolerance)
    facts: Facts = {
        "max_difference": difference,
        "readout_slice": sliced,
        "exporter": params.exporter,
        **versions,
    }
    return facts | ({"token_embeddings": tokens} if encodes else {})


def refuses(params: Params, head: Head) -> str | None:
    """optimum knows an encoder's hidden states alone."""
    if params.exporter == "optimum" and OUTPUT in head.outputs:
        return "exporter 'optimum' writes no embedding of a sentence; leave it out"
    return None


STAGE = Stage(
    run=run,
    params=Params,
    takes="torch",
    gives="onnx",
    needs=("torch", "transformers", "onnx", "onnx-ir", "onnxscript"),
    depends=lambda params: frozenset({"optimum"} if params.exporter == "optimum" else ()),
    refuses=refuses,
    summary="PyTorch to ONNX, with parity proven and the readout slice",
    traits=lambda params: Traits(makes=frozenset({"lean"} if params.lean else ())),
)
