"""Whole models: what stages make of each kind is one, and what lacks a part of it is refused."""

from __future__ import annotations

import shutil

import pytest

from optimize.artifact import seal
from optimize.errors import SealError, SourceError
from optimize.heads import HEADS
from optimize.measure.kinds import KINDS

HEAD = "text-classification"
CHAINS = {
    "torch": (),
    "onnx": ("export",),
    "lean onnx": ("export", "fuse"),
    "int8 onnx": ("export", "quantize_dynamic"),
    "fp16 onnx": ("export", "fuse", "convert_fp16"),
    "openvino": ("export", "convert_openvino"),
    "int8 openvino": ("export", "convert_openvino", "quantize_openvino"),
    "fixed openvino": ("export", "convert_openvino", "reshape_openvino"),
    "openvino with its tokenizer": ("export", "convert_openvino", "attach_tokenizer"),
}
PARAMS = {"reshape_openvino": {"tokens": 32}}


def built(context, apply, stages, head=HEAD):
    here, made = context(head), None
    for stage in stages:
        made = apply(here, stage, made, **PARAMS.get(stage, {}))
    return made.artifact if made else here.reference


def require_whole(artifact, head=HEAD):
    KINDS[artifact.kind].require_whole(artifact, HEADS[head])


@pytest.mark.parametrize("stages", CHAINS.values(), ids=CHAINS)
def test_what_stages_make_is_whole(stages, context, apply):
    require_whole(built(context, apply, stages))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_it_is_a_model_of_its_head(kind, head, context, apply):
    require_whole(built(context, apply, CHAINS[kind], head), head)


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_it_is_not_one_of_another_head(kind, context, apply):
    with pytest.raises(SealError, match="is not a model of head 'question-answering', from attention_mask and input_"):
        require_whole(built(context, apply, CHAINS[kind]), "question-answering")


def cut(path):
    path.write_bytes(path.read_bytes()[:-4])


SPOILED = {
    "no ONNX file": ("onnx", "model.onnx", lambda path: path.unlink(), "is not a readable ONNX model"),
    "no XML": ("openvino", "openvino_model.xml", lambda path: path.unlink(), "is not a readable OpenVINO model"),
    "no weights": ("openvino", "openvino_model.bin", lambda path: path.unlink(), "bin: is missing or shorter"),
    "fewer weights": ("openvino", "openvino_model.bin", cut, "bin: is missing or shorter than openvino_model.xml says"),
    "half of the XML": ("openvino", "openvino_model.xml", cut, "is not a readable OpenVINO model"),
    "no numbers in the XML": (
        "openvino",
        "openvino_model.xml",
        lambda path: path.write_text(
            path.read_text(encoding="utf-8").replace('offset="', 'offset="x'), encoding="utf-8"
        ),
        "is not a readable OpenVINO model",
    ),
    "no weights of the tokenizer": (
        "openvino with its tokenizer",
        "openvino_tokenizer.bin",
        lambda path: path.unlink(),
        "openvino_tokenizer.bin: is missing",
    ),
    "no checkpoint": ("torch", "model.safetensors", lambda path: path.unlink(), "has no weights for head"),
    "half a checkpoint": ("torch", "model.safetensors", cut, "not a readable safetensors file"),
}


@pytest.mark.parametrize(("kind", "file", "spoil", "says"), SPOILED.values(), ids=SPOILED)
def test_what_lacks_a_part_is_refused(kind, file, spoil, says, context, apply, tmp_path):
    artifact = built(context, apply, CHAINS[kind])
    shutil.copytree(artifact.path, tmp_path / "copy")
    spoil(tmp_path / "copy" / file)

    with pytest.raises((SealError, SourceError), match=says) as refused:
        require_whole(seal(tmp_path / "copy", artifact.kind))
    assert refused.value.exit_code == 2
