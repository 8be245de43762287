"""The checkpoint's tokenizer as OpenVINO graphs, so that text can go in without Python tokenizing it.

`openvino_tokenizer.xml` is the tokenizer alone, under the name that optimum-intel and OpenVINO GenAI give it;
`openvino_end_to_end.xml` is one graph from text to the model's outputs, with the weights in it once more. To read
either, import `openvino_tokenizers` first, or add its extension to the Core.

The proof compares the one graph with tokenizing in Python, on texts that calibration tokens spell. Texts that are too
long are cut at the end; windows over long contexts, which question answering is scored with, remain Python's.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from optimize.artifact import Artifact
from optimize.checkpoint import read_config
from optimize.errors import StageError
from optimize.interfaces import Context, Facts, Feature, Stage, Traits
from optimize.interfaces import Params as StageParams
from optimize.runtimes.openvino import axes_of, load_openvino, read_model

if TYPE_CHECKING:
    import openvino
    from transformers import PreTrainedTokenizerBase

NAME = "attach_tokenizer"
TOKENIZER_FILE = "openvino_tokenizer.xml"
END_TO_END_FILE = "openvino_end_to_end.xml"
INPUTS = ("text", "text_pair")


class Params(StageParams):
    """What is attached, and how it is proven."""

    inputs: int = Field(
        default=1,
        ge=1,
        le=2,
        description="Texts that make one example: 1, or 2 for pairs. Question answering and multiple choice take 2 "
        "whatever this says.",
    )
    texts: int = Field(
        default=64,
        ge=1,
        description="Calibration texts, at most, on which the graphs are compared with tokenizing in Python.",
    )
    min_alike: float = Field(
        default=0.98,
        ge=0,
        le=1,
        description="Share of those texts that has to become the same tokens as in Python. Below it the stage fails.",
    )
    tolerance: float = Field(
        default=1e-3,
        gt=0,
        description="Largest difference between the outputs of the joined graph and of the model alone, relative to "
        "the largest output; 1 where all outputs are smaller. A larger one fails the stage.",
    )


def run(source: Artifact, out: Path, params: Params, context: Context) -> Facts:
    """Copy the model, and write the two graphs beside it."""
    import transformers

    model = read_model(source.path)
    if not axes_of(model).free:
        raise StageError(f"{NAME}: the model's axes are fixed or bounded; leave out 'reshape_openvino'")
    for file in source.model_files():
        shutil.copyfile(file, out / file.name)
    python = transformers.AutoTokenizer.from_pretrained(source.path, local_files_only=True)
    config = read_config(source.path)
    inputs = 2 if context.head.takes_pairs else params.inputs
    most = min(python.model_max_length, config["max_position_embeddings"])
    save = load_openvino().save_model
    tokenizer = _convert(python, inputs, most)
    save(tokenizer, out / TOKENIZER_FILE, compress_to_fp16=False)
    connected = _connect(tokenizer, model, stack=context.head.has_choices)
    save(connected, out / END_TO_END_FILE, compress_to_fp16=False)
    return _compare(out, python, inputs, most, params, context)


def _convert(python: PreTrainedTokenizerBase, inputs: int, most: int) -> openvino.Model:
    """The tokenizer's graph, with inputs called `text` and, for pairs, `text_pair`."""
    import openvino_tokenizers

    tokenizer = openvino_tokenizers.convert_tokenizer(python, truncation=True, max_length=most, number_of_inputs=inputs)
    for port, name in zip(tokenizer.inputs, INPUTS, strict=False):
        port.get_tensor().set_names({name})
    return tokenizer


def _connect(tokenizer: openvino.Model, model: openvino.Model, *, stack: bool) -> openvino.Model:
    """One graph of both; with `stack`, all rows of tokens are the choices of one example.

    `connect_models` of openvino_tokenizers 2026.4 forgets the tokenizer's sinks, without which its graph is not run.
    """
    library = load_openvino()
    operators = library.opset13
    for port in model.inputs:
        # What the tokenizer's result of the same name gives out, and not that result itself.
        found = tokenizer.output(port.get_any_name()).get_node().input_value(0)
        if stack:
            found = operators.unsqueeze(found, operators.constant(np.int64(0))).output(0)
        for reader in port.get_target_inputs():
            reader.replace_source_output(found)
    connected = library.Model(model.get_results(), tokenizer.get_sinks(), tokenizer.get_parameters(), "end to end")
    connected.validate_nodes_and_infer_types()
    return connected


def _compare(
    folder: Path, python: PreTrainedTokenizerBase, inputs: int, most: int, params: Params, context: Context
) -> Facts:
    """Prove the one graph on texts: tokens alike, and outputs where they are."""
    core = load_openvino().Core()
    tokenizer = core.compile_model(folder / TOKENIZER_FILE, "CPU")
    whole = core.compile_model(folder / END_TO_END_FILE, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    session = context.open("openvino", folder)
    texts = [_texts(feature, python, inputs) for feature in context.calibration.features[: params.texts]]
    alike, worst, scale = 0, 0.0, 1.0
    for text in texts:
        named = dict(zip(INPUTS, text, strict=False))
        found = tokenizer(named)[tokenizer.output("input_ids")]
        wanted = python(*text, truncation=True, max_length=most, padding=True, return_tensors="np")
        if not np.array_equal(found, wanted["input_ids"]):
            continue  # counted as not alike; there is nothing to compare of other tokens' outputs
        alike += 1
        feed = {name: wanted[name].astype(np.int64) for name in ("input_ids", "attention_mask")}
        if context.head.has_choices:
            feed = {name: array[None] for name, array in feed.items()}
        expected, got = session(feed), whole(named)
        for name in context.head.outputs:
            worst = max(worst, float(np.abs(expected[name] - got[whole.output(name)]).max()))
            scale = max(scale, float(np.abs(expected[name]).max()))
    enough = texts and alike >= params.min_alike * len(texts)
    if not enough or not worst <= params.tolerance * scale:  # so put that NaN is refused
        raise StageError(
            f"{NAME}: {alike} of {len(texts)} texts became the same tokens as in Python, with outputs up to "
            f"{worst:.2e} apart; this tokenizer cannot be attached, leave the stage out"
        )
    return {"texts_compared": len(texts), "texts_tokenized_alike": alike, "max_difference": worst}


def _texts(feature: Feature, python: PreTrainedTokenizerBase, inputs: int) -> tuple[list[str], ...]:
    """Texts that a feature's tokens spell: for each input a list, which has a text for each choice."""
    ids = feature.inputs["input_ids"]
    texts: tuple[list[str], ...] = tuple([] for _ in range(inputs))
    for row in ids if ids.ndim == 2 else ids[None]:
        # [CLS] text [SEP] text of a pair [SEP]
        parts = python.decode(row).removeprefix(python.cls_token).split(python.sep_token)
        for place, named in enumerate(texts):
            named.append(parts[place].strip() if place < len(parts) else "")
    return texts


def traits(_: Params) -> Traits:
    """Texts of any length come out of a tokenizer."""
    return Traits(
        makes=frozenset({"joined to its tokenizer"}),
        refuses={
            "of fixed shape": "leave out 'reshape_openvino'",
            "joined to its tokenizer": "leave one of them out",
        },
    )


STAGE = Stage(
    run=run,
    params=Params,
    takes="openvino",
    gives="openvino",
    needs=("openvino", "openvino-tokenizers", "transformers"),
    summary="The tokenizer as OpenVINO graphs: alone, and joined to the model",
    traits=traits,
)
