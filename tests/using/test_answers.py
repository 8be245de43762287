"""Answers are those of transformers.pipeline on the checkpoint, for every head that it has a pipeline for."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import optimize
from optimize.errors import DataError, RequestError

LONG = 24
"""Tokens that a model is told to take, so that texts are too long."""


@pytest.fixture(scope="module")
def ours(exported_run):
    return lambda head, **changes: optimize.load(exported_run(head, **changes), threads=1)


@pytest.fixture(scope="module")
def theirs(checkpoint):
    from transformers import AutoTokenizer, pipeline

    def make(head: str, longest: int = 64):
        tokenizer = AutoTokenizer.from_pretrained(checkpoint(head), model_max_length=longest)
        return pipeline(head, model=str(checkpoint(head)), tokenizer=tokenizer, device="cpu")

    return make


@pytest.fixture(scope="module")
def rows(data_folder):
    def read(head: str, count: int = 6):
        lines = (data_folder(head) / "test.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines[:count]]

    return read


def same(one, other, tolerance=1e-5):
    """Whether two answers are equal, their numbers nearly."""
    if isinstance(other, dict):
        return isinstance(one, dict) and list(one) == list(other) and all(same(one[key], other[key]) for key in other)
    if isinstance(other, list):
        return isinstance(one, list) and len(one) == len(other) and all(map(same, one, other))
    if isinstance(other, str | int) and not isinstance(other, bool):
        return one == other
    return abs(float(one) - float(other)) <= tolerance


@pytest.mark.parametrize("options", [{}, {"top_k": 1}, {"top_k": None}, {"function_to_apply": "sigmoid"}])
def test_texts_are_classified_as_the_pipeline_does(options, ours, theirs, rows):
    texts = [row["text"] for row in rows("text-classification")]
    model, ask = ours("text-classification"), theirs("text-classification")

    assert same(model(texts, **options), ask(texts, **options))
    assert same(model(texts[0], **options), ask(texts[0], **options))
    pair = {"text": texts[0], "text_pair": texts[1]}
    assert same(model(pair, **options), ask(pair, **options))


@pytest.mark.parametrize("strategy", ["none", "simple", "first", "average", "max"])
def test_tokens_are_classified_as_the_pipeline_does(strategy, ours, theirs, rows):
    words = [row["tokens"] for row in rows("token-classification")]
    texts = [" ".join(each) + " xylophonically" for each in words]
    model, ask = ours("token-classification"), theirs("token-classification")
    options = {"aggregation_strategy": strategy, "ignore_labels": []}

    assert same(model(texts, **options), ask(texts, **options))
    assert same(model(texts[0], aggregation_strategy=strategy), ask(texts[0], aggregation_strategy=strategy))
    options |= {"is_split_into_words": True}
    assert same(model(words, **options), ask(words, **options))
    assert model(words[0], **options) == model(words[:1], **options)[0]


@pytest.mark.parametrize("strategy", ["simple", "first"])
def test_a_long_text_is_read_whole_by_windows_as_the_pipeline_does(strategy, ours, theirs, rows):
    text = " ".join(word for row in rows("token-classification", 20) for word in row["tokens"])
    model, ask = ours("token-classification", max_tokens=LONG), theirs("token-classification", LONG)
    options = {"aggregation_strategy": strategy, "stride": 8}

    assert same(model(text, **options), ask(text, **options))
    assert same(model(text), ask(text))  # cut, where nothing is said


def test_masks_are_filled_as_the_pipeline_does(ours, theirs, rows):
    text = rows("fill-mask")[0]["text"].lower().split()
    one, two = ["[MASK]", *text[1:]], ["[MASK]", *text[1:-1], "[MASK]"]
    model, ask = ours("fill-mask"), theirs("fill-mask")

    assert same(model(" ".join(one)), ask(" ".join(one)))
    assert same(model([" ".join(two)] * 2, top_k=2), ask([" ".join(two)] * 2, top_k=2))
    assert same(model(" ".join(one), targets=text[:2]), ask(" ".join(one), targets=text[:2]))


def test_hidden_states_are_those_of_the_pipeline(ours, theirs, rows):
    row = rows("feature-extraction")[0]
    texts = [row["sentence1"], row["sentence2"] + " and more"]
    model, ask = ours("feature-extraction"), theirs("feature-extraction")

    found = model(texts)
    assert same(found, ask(texts))
    assert same(model(texts[0]), ask(texts[0]))
    mean = model(texts[0], pooling=True, return_tensors=True)
    np.testing.assert_allclose(mean, np.mean(found[0][0], axis=0), atol=1e-5)


def test_the_choice_is_the_one_that_the_model_prefers(ours, rows, checkpoint):
    import torch
    from transformers import AutoModelForMultipleChoice, AutoTokenizer

    row = rows("multiple-choice")[0]
    folder = checkpoint("multiple-choice")
    tokens = AutoTokenizer.from_pretrained(folder)(
        [row["context"]] * len(row["choices"]), row["choices"], padding=True, return_tensors="pt"
    )
    feed = {name: tokens[name][None] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        expected = AutoModelForMultipleChoice.from_pretrained(folder)(**feed).logits[0].softmax(-1).tolist()
    model = ours("multiple-choice")

    found = model(context=row["context"], choices=row["choices"], top_k=None)

    assert [each["index"] for each in found] == sorted(range(len(expected)), key=lambda index: -expected[index])
    assert [each["score"] for each in found] == pytest.approx(sorted(expected, reverse=True), abs=1e-5)
    assert model({"context": row["context"], "choices": row["choices"]}) == found[0]


def test_questions_are_answered_from_all_windows_and_the_best_come_first(ours, rows):
    given = [{name: row[name] for name in ("question", "context")} for row in rows("question-answering")]
    model = ours("question-answering", max_tokens=LONG + 8)
    given[0]["context"] = " ".join([each["context"] for each in given] * 3)

    found = model(given, top_k=3)

    for asked, answers in zip(given, found, strict=True):
        for each in answers:
            assert asked["context"][each["start"] : each["end"]].lower() == each["answer"].lower()
        assert [each["score"] for each in answers] == sorted((each["score"] for each in answers), reverse=True)
        assert len({each["answer"].lower() for each in answers}) == len(answers) == 3
    assert model(given[0]) == found[0][0]
    assert model(question=[each["question"] for each in given[:2]], context=given[1]["context"])[1] == found[1][0]


def test_answers_do_not_depend_on_which_others_are_asked(ours, rows):
    texts = [row["text"] for row in rows("text-classification", 12)]
    model = ours("text-classification")

    together = model(texts, batch_size=4)

    assert same(together, [model(text)[0] for text in texts])
    assert model([]) == []


@pytest.mark.parametrize(
    ("head", "given", "options", "said"),
    [
        ("text-classification", 7, {}, "the input: is an int; give text"),
        ("text-classification", {"txt": "a"}, {}, "the input: has 'txt', which is not known"),
        ("text-classification", "\ud800", {}, "half a character"),
        ("text-classification", "a", {"topk": 1}, "did you mean 'top_k'?"),
        ("text-classification", "a", {"top_k": 0}, "top_k: Input should be greater than or equal to 1"),
        ("fill-mask", "no mask", {}, "has no [MASK] among its first"),
        ("fill-mask", "[MASK]", {"targets": "qqqq"}, "targets: 'qqqq' is no token"),
        ("token-classification", "a", {"stride": 4}, "stride: joins entities of windows"),
        ("question-answering", {"question": "Who?"}, {}, "the input: has no context"),
        ("multiple-choice", {"context": "Who?", "choices": ["one"]}, {}, "has 1 choices"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_a_line(head, given, options, said, ours):
    with pytest.raises(RequestError) as refused:
        ours(head)(given, **options)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_input_and_its_parts_are_not_given_both(ours):
    model = ours("text-classification")
    for words in ({}, {"inputs": "a", "text": "b"}):
        with pytest.raises(DataError, match="give an input"):
            model(**words)


def test_the_runs_threshold_decides_whether_no_answer_comes_first(ours, rows):
    row = rows("question-answering")[0]
    given = {name: row[name] for name in ("question", "context")}
    model = ours("question-answering")
    spans = model(given, top_k=2)

    def with_threshold(value):
        return replace(model, known=replace(model.known, thresholds={"no_answer": value}))

    assert [each["answer"] for each in with_threshold(-1e9)(given, top_k=2)] == ["", spans[0]["answer"]]
    assert [each["answer"] for each in with_threshold(1e9)(given, top_k=2)] == [spans[0]["answer"], ""]
    assert with_threshold(-1e9)(given, top_k=2, handle_impossible_answer=False) == spans


def test_a_sentence_encoder_gives_its_embedding_with_its_prompt_before_the_text(encoder_folder, exported_run):
    from transformers import AutoTokenizer

    from optimize.heads import head_of
    from optimize.runtimes.pytorch import TorchRuntime, open_torch

    head = "feature-extraction"
    folder = encoder_folder()
    model = optimize.load(exported_run(head, folder), threads=1)
    tokens = AutoTokenizer.from_pretrained(folder)(model.known.prompt + "the train is late", return_tensors="np")
    feed = {name: tokens[name].astype(np.int64) for name in ("input_ids", "attention_mask")}
    (expected,) = open_torch(folder, 1, head_of(head, folder), TorchRuntime())(feed).values()

    np.testing.assert_allclose(model("the train is late"), expected[0], atol=1e-5)
    assert model(["the train", "a bus is here"]).shape == (2, len(expected[0]))
