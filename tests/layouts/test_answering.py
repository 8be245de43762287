"""What is copied beside a model answers as transformers.pipeline does, with numpy, onnxruntime and tokenizers alone."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path

import numpy as np
import pytest
from served import TEXTS, record_of

from optimize.publishing.layouts.handlers import answering
from optimize.publishing.layouts.served import HANDLERS


def pipeline(head: str, folder: Path):
    import transformers

    return transformers.pipeline(head, model=str(folder), tokenizer=str(folder))


def same(ours, theirs) -> None:
    """Answers are equal, numbers but for rounding."""
    if isinstance(theirs, dict):
        assert set(ours) == set(theirs)
        for name, value in theirs.items():
            same(ours[name], value)
    elif isinstance(theirs, list) and theirs and not isinstance(theirs[0], float):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            same(one, other)
    elif isinstance(theirs, str | int):
        assert ours == theirs
    else:
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("head", ["feature-extraction", "fill-mask", "text-classification", "token-classification"])
def test_answers_are_those_of_a_pipeline(head, arranged, context):
    predict = answering.open_model(arranged("kserve", head) / "kserve" / "model")
    asked = pipeline(head, context(head).reference.path)

    for text in TEXTS[head]:
        theirs = asked(text)
        same(predict(text), theirs[0] if head == "text-classification" else theirs)


def test_a_choice_is_the_likeliest_of_those_that_the_checkpoint_scores(arranged, context):
    import torch
    import transformers

    (given,) = TEXTS["multiple-choice"]
    predict = answering.open_model(arranged("kserve", "multiple-choice") / "kserve" / "model")
    folder = context("multiple-choice").reference.path
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    pairs = tokenizer([given["context"]] * 2, given["choices"], padding=True, return_tensors="pt")
    model = transformers.AutoModelForMultipleChoice.from_pretrained(folder)
    with torch.no_grad():
        shares = model(pairs["input_ids"][None], pairs["attention_mask"][None]).logits[0].softmax(-1)

    best = int(shares.argmax())
    same(predict(given), {"choice": given["choices"][best], "index": best, "score": float(shares[best])})


def test_an_answer_is_the_likeliest_span_of_whole_words(arranged):
    (given,) = TEXTS["question-answering"]
    folder = arranged("kserve", "question-answering") / "kserve" / "model"
    known = answering.read_known(folder)
    (row,) = answering.encode(known, given)
    rng = np.random.default_rng(3)
    logits = {name: rng.normal(size=(1, len(row.ids))).astype(np.float32) for name in ("start_logits", "end_logits")}
    seen = [0, *(place for place, part in enumerate(row.sequence_ids) if part == 1)]
    start, end = (np.exp(logits[name][0, seen]) / np.exp(logits[name][0, seen]).sum() for name in logits)
    spans = [(start[i] * end[j], i, j) for i in range(1, len(seen)) for j in range(i, min(i + 15, len(seen)))]
    _, i, j = max(spans)

    said = answering.answer(known, given, [row], logits)

    assert said["answer"] == given["context"][said["start"] : said["end"]]
    assert said["start"] <= row.offsets[seen[i]][0] < row.offsets[seen[j]][1] <= said["end"]
    assert said["score"] >= max(spans)[0] * 0.999


def test_a_context_of_several_windows_is_looked_at_whole(arranged):
    predict = answering.open_model(arranged("kserve", "question-answering") / "kserve" / "model")
    context = "Ada lives in London, and Bob lives in Rome. " * 60

    said = predict({"question": "Where?", "context": context})

    assert said["answer"] == context[said["start"] : said["end"]]


@pytest.mark.parametrize(
    ("head", "given", "what"),
    [
        ("text-classification", {"texts": "A."}, "an input has to be a text, or an object of text, text_pair"),
        ("text-classification", 3, "an input has to be a text"),
        ("text-classification", {"text": 3}, "text: has to be a text"),
        ("question-answering", "Who?", "an input has to be an object of question, context"),
        ("multiple-choice", {"context": "A.", "choices": []}, "choices: has to be a list of two texts or more"),
        ("fill-mask", "No mask.", r"text: has no \[MASK\]"),
    ],
)
def test_what_is_no_input_is_refused_in_a_line(head, given, what, arranged):
    predict = answering.open_model(arranged("kserve", head) / "kserve" / "model")

    with pytest.raises(ValueError, match=what):
        predict(given)


def test_a_second_text_is_read(arranged):
    predict = answering.open_model(arranged("kserve", "text-classification") / "kserve" / "model")

    alone, pair = predict("A film."), predict({"text": "A film.", "text_pair": "It was bad."})

    assert alone["score"] != pair["score"]


def test_handlers_import_what_their_servers_have_and_nothing_of_this_package():
    for path in HANDLERS.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not any(name.startswith("optimize") for name in names), path


def test_an_engine_without_the_provider_is_refused(arranged):
    record = record_of("text-classification")
    on_gpu = record.model_copy(update={"request": dataclasses.replace(record.request, target="cuda")})
    folder = arranged("kserve", "text-classification", on_gpu) / "kserve" / "model"

    with pytest.raises(RuntimeError, match="CUDAExecutionProvider: not in this onnxruntime"):
        answering.open_model(folder)
