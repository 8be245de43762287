"""The tokenizer as graphs: one graph from text to outputs, equal to tokenizing in Python."""

import shutil

import numpy as np
import pytest

from optimize.artifact import seal
from optimize.errors import StageError
from optimize.heads import HEADS
from optimize.runtimes.openvino import load_openvino
from optimize.stages import STAGES
from optimize.stages.attach_tokenizer import END_TO_END_FILE, TOKENIZER_FILE

NAMES = sorted(HEADS)
TEXTS = ["a fine film , warm and clever .", "Dull!"]


def converted(context, apply, head):
    return apply(context(head), "convert_openvino", apply(context(head), "export"))


def attached(context, apply, head):
    return apply(context(head), "attach_tokenizer", converted(context, apply, head))


def read_graph(folder, name):
    openvino = load_openvino()
    import openvino_tokenizers  # noqa: F401  (brings the operators)

    return openvino.Core().compile_model(folder / name, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


@pytest.mark.parametrize("head", NAMES)
def test_text_goes_in_and_what_comes_out_is_what_python_and_the_model_give(head, context, apply):
    import transformers

    here, built = context(head), attached(context, apply, head)
    folder = built.artifact.path
    pairs = head in ("multiple-choice", "question-answering")
    texts = {"text": TEXTS, **({"text_pair": TEXTS[::-1]} if pairs else {})}
    python = transformers.AutoTokenizer.from_pretrained(folder)
    tokens = python(*texts.values(), padding=True, return_tensors="np")
    feed = {name: tokens[name].astype(np.int64) for name in ("input_ids", "attention_mask")}
    if head == "multiple-choice":
        feed = {name: array[None] for name, array in feed.items()}

    graph = read_graph(folder, END_TO_END_FILE)
    found = graph(texts)

    for name, expected in built.open(here)(feed).items():
        assert np.allclose(found[graph.output(name)], expected, atol=1e-5)


@pytest.mark.parametrize("head", NAMES)
def test_the_facts_say_how_many_texts_were_compared(head, context, apply):
    facts = attached(context, apply, head).facts
    count = len(context(head).calibration.features)
    assert (facts["texts_compared"], facts["texts_tokenized_alike"]) == (count, count)
    assert facts["max_difference"] < 1e-4


def test_the_tokenizer_alone_gives_the_tokens(context, apply):
    import transformers

    folder = attached(context, apply, "text-classification").artifact.path
    graph = read_graph(folder, TOKENIZER_FILE)
    expected = transformers.AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="np")
    assert np.array_equal(graph({"text": TEXTS})[graph.output("input_ids")], expected["input_ids"])


def test_the_model_itself_is_copied_as_it_is_and_alone_counts_as_the_model(context, apply):
    before, after = (make(context, apply, "text-classification").artifact for make in (converted, attached))
    assert [path.name for path in after.model_files()] == ["openvino_model.bin", "openvino_model.xml"]
    assert after.model_bytes() == before.model_bytes()


def test_a_tokenizer_that_gives_other_tokens_is_refused(context, apply, tmp_path, monkeypatch):
    from optimize.stages import attach_tokenizer

    here = context("text-classification")
    source = tmp_path / "source"
    shutil.copytree(converted(context, apply, "text-classification").artifact.path, source)
    sound = attach_tokenizer._convert
    monkeypatch.setattr(attach_tokenizer, "_convert", lambda python, inputs, most: sound(python, inputs, 4))
    (tmp_path / "out").mkdir()
    with pytest.raises(StageError, match=r"^attach_tokenizer: \d+ of \d+ texts became the same tokens as in Python"):
        STAGES["attach_tokenizer"].run(seal(source, "openvino"), tmp_path / "out", attach_tokenizer.Params(), here)


@pytest.mark.parametrize("stage", ["quantize_openvino", "reshape_openvino"])
def test_nothing_is_done_to_the_model_afterwards(stage, context, apply):
    here = context("text-classification")
    with pytest.raises(StageError, match="the tokenizer is attached already; put 'attach_tokenizer' last"):
        apply(here, stage, attached(context, apply, "text-classification"))


def test_fixed_axes_are_refused(context, apply):
    here = context("text-classification")
    fixed = apply(here, "reshape_openvino", converted(context, apply, "text-classification"), tokens=32)
    with pytest.raises(StageError, match="the model's axes are fixed or bounded; leave out 'reshape_openvino'"):
        apply(here, "attach_tokenizer", fixed)
