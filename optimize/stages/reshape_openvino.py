"""Fixed or bounded axes for an OpenVINO model, which are dynamic without this stage.

NPUs take fixed shapes only, and compilers of GPUs plan memory by bounds. A session pads what it is fed to a fixed
length and runs larger batches in parts, so a model with fixed axes computes more than it was asked for: the latency
of short texts shows it. Weights and operators stay; only the shapes of the inputs change, and what follows from them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import BeforeValidator, Field

from optimize.artifact import Artifact
from optimize.errors import StageError
from optimize.evaluate.parity import check_parity
from optimize.graphs.openvino import refuse_attached
from optimize.interfaces import Context, Facts, Stage, Traits
from optimize.interfaces import Params as StageParams
from optimize.runtimes.openvino import MODEL_FILE, load_openvino, read_model

if TYPE_CHECKING:
    import openvino

NAME = "reshape_openvino"


def _axis(value: object) -> object:
    """A size, or `1..8` for bounds."""
    text = str(value)
    if not re.fullmatch(r"[1-9]\d*(\.\.[1-9]\d*)?", text):
        raise ValueError("an axis is a size such as 128, or bounds such as 1..128")
    low, _, high = text.partition("..")
    if high and int(low) >= int(high):
        raise ValueError("the lower bound of an axis is below the upper one")
    return text


Axis = Annotated[str, BeforeValidator(_axis)]


class Params(StageParams):
    """Sizes such as `128` or bounds such as `1..128`; an axis that is not given stays dynamic."""

    batch: Axis | None = Field(
        default=None, description="Examples in a batch, as a size or as bounds. Larger batches run in parts."
    )
    choices: Axis | None = Field(
        default=None, description="Choices of an example, as a size or as bounds; for multiple choice alone."
    )
    tokens: Axis | None = Field(
        default=None,
        description="Tokens of a text, as a size or as bounds. Shorter texts are padded to a size, longer ones are "
        "cut.",
    )
    tolerance: float = Field(
        default=1e-2,
        gt=0,
        description="Largest difference from the model before that is accepted, relative to the largest output: "
        "kernels chosen for a shape may round otherwise.",
    )


def run(source: Artifact, out: Path, params: Params, context: Context) -> Facts:
    """Write the model with these axes; refuse one whose outputs differ from the source's."""
    refuse_attached(source.path, stage=NAME)
    model = read_model(source.path)
    shape = _shape(model, params)
    model.reshape({port.get_any_name(): shape for port in model.inputs})
    # Weights that an earlier stage stored in 16 bits stay as they are.
    load_openvino().save_model(model, out / MODEL_FILE, compress_to_fp16=False)
    longest, tolerance = max_tokens(params), params.tolerance
    worst = check_parity(out, source, context, stage=NAME, tolerance=tolerance, kind="openvino", max_tokens=longest)
    return {"shape": str(shape), "max_difference": worst}


def _shape(model: openvino.Model, params: Params) -> openvino.PartialShape:
    """The shape that all inputs are given; OpenVINO reads sizes and bounds as YAML has them, and "?" as dynamic."""
    library = load_openvino()
    rank = len(model.input("input_ids").get_partial_shape())
    if params.choices is not None and rank == 2:
        raise StageError(f"{NAME}: the model has no axis of choices; leave out 'choices'")
    axes = (params.batch, params.tokens) if rank == 2 else (params.batch, params.choices, params.tokens)
    if not any(axes):
        raise StageError(f"{NAME}: no axis is given; name one of 'batch', 'choices' and 'tokens'")
    return library.PartialShape([library.Dimension(axis or "?") for axis in axes])


def max_tokens(params: Params) -> int | None:
    """The longest text that fits."""
    return int(params.tokens.rpartition("..")[2]) if params.tokens else None


def traits(_: Params) -> Traits:
    """An attached tokenizer's graph holds a copy of the model, which would keep its shapes."""
    return Traits(
        makes=frozenset({"of fixed shape"}), refuses={"joined to its tokenizer": "put 'attach_tokenizer' last"}
    )


STAGE = Stage(
    run=run,
    params=Params,
    takes="openvino",
    gives="openvino",
    needs=("openvino",),
    summary="Fixed or bounded batch, choices and tokens; NPUs need them",
    max_tokens=max_tokens,
    traits=traits,
)
