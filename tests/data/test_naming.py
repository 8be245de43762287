"""Classes of data whose checkpoint has none: their number, their names, and what kind of answer they are."""

from __future__ import annotations

import json
from dataclasses import replace

import datasets
import pytest

from optimize.data.layout import Rows
from optimize.data.naming import MOST_CLASSES, classes_in
from optimize.data.splits import load_splits
from optimize.data.wanted import Wanted
from optimize.errors import DataError
from optimize.heads import HEADS

TEXTS, TAGS = "text-classification", "token-classification"


def table(head, labels, feature=None):
    column = "label" if head == TEXTS else "tags"
    words = {"text": [str(i) for i in range(len(labels))]}
    if head == TAGS:
        words = {"tokens": [["a"] * len(each) for each in labels]}
    found = datasets.Dataset.from_dict({**words, column: labels})
    return found.cast_column(column, feature) if feature else found


def read(head, *tables):
    rows = [Rows(each, HEADS[head], {}, where=f"split {place}", files=()) for place, each in enumerate(tables)]
    return classes_in(rows, HEADS[head])


def names(found):
    return list(found["id2label"].values())


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["spam", "ham", "spam"], ["ham", "spam"]),
        ([1, 0, 2], ["LABEL_0", "LABEL_1", "LABEL_2"]),
        (["1", "0"], ["LABEL_0", "LABEL_1"]),
        ([1, 2, 3, 4, 5], ["1", "2", "3", "4", "5"]),
        ([0.0, 1.0], ["LABEL_0", "LABEL_1"]),
        ([True, False], ["false", "true"]),
        ([0, -1, 1], ["LABEL_0", "LABEL_1"]),
    ],
)
def test_one_label_a_text_is_one_class_of_several(labels, expected):
    found = read(TEXTS, table(TEXTS, labels))

    assert found["problem_type"] == "single_label_classification"
    assert names(found) == expected
    assert found["label2id"] == {name: number for number, name in enumerate(expected)}
    assert found["num_labels"] == len(expected)


def test_names_that_a_data_set_declares_go_first_in_their_order():
    feature = datasets.ClassLabel(names=["positive", "negative", "mixed"])
    assert names(read(TEXTS, table(TEXTS, [0, 1, 0], feature))) == ["positive", "negative", "mixed"]


def test_numbers_with_fractions_are_a_regression():
    found = read(TEXTS, table(TEXTS, [0.0, 2.5, 5.0]))
    assert (found["problem_type"], found["num_labels"]) == ("regression", 1)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([["a", "b"], [], ["b"]], ["a", "b"]),
        ([[0, 1, 1], [1, 0, 0]], ["LABEL_0", "LABEL_1", "LABEL_2"]),
        ([[0], [2, 1]], ["LABEL_0", "LABEL_1", "LABEL_2"]),
    ],
)
def test_lists_are_several_classes_a_text(labels, expected):
    found = read(TEXTS, table(TEXTS, labels))
    assert (found["problem_type"], names(found)) == ("multi_label_classification", expected)


def test_tags_stand_by_their_types_with_outside_first():
    found = read(TAGS, table(TAGS, [["I-PER", "O", "B-LOC"], ["B-PER", "I-LOC"]]))
    assert names(found) == ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
    assert "problem_type" not in found


def test_tags_of_words_that_are_not_judged_are_no_class():
    assert names(read(TAGS, table(TAGS, [[0, -100, 1], [2]]))) == ["LABEL_0", "LABEL_1", "LABEL_2"]


def test_classes_that_only_one_of_the_splits_has_count():
    assert names(read(TEXTS, table(TEXTS, ["a", "b"]), table(TEXTS, ["b", "c"]))) == ["a", "b", "c"]


@pytest.mark.parametrize("head", ["fill-mask", "multiple-choice", "question-answering"])
def test_a_head_without_classes_of_its_own_gets_none(head):
    assert classes_in([], HEADS[head]) == {}


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["spam", "spam"], "^split 0: every label is 'spam'; give data with two classes or more$"),
        ([-1, -1], "^split 0: has no labels to learn from; name a column with --columns label=…$"),
        ([f"text {i}" for i in range(MOST_CLASSES + 1)], "has 1,001 different labels, such as 'text 0', and at most"),
    ],
)
def test_labels_that_tell_nothing_apart_are_refused(labels, message):
    with pytest.raises(DataError, match=message):
        read(TEXTS, table(TEXTS, labels))


def test_rows_are_matched_to_the_classes_that_were_found(tmp_path):
    for split in ("train", "validation"):
        rows = [{"text": f"{split} {i}", "label": ("ham", "spam")[i % 2]} for i in range(30)]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    wanted = Wanted(str(tmp_path), None, {}, None, 10, 4, 4, 0, training_examples=20)
    config = {"model_type": "distilbert", "id2label": {"0": "x", "1": "y", "2": "z"}, "num_labels": 3}

    found = load_splits(wanted, HEADS[TEXTS], config, new_classes=True)

    assert names(found.config) == ["ham", "spam"]
    assert found.config["model_type"] == "distilbert"
    assert {row["label"] for row in found.training} == {0, 1}
    few = load_splits(
        replace(wanted, calibration_examples=100, tuning_examples=100, training_share=0.5),
        HEADS[TEXTS],
        config,
        new_classes=True,
    )
    assert (len(few.training), len(few.tuning), len(few.calibration)) == (15, 7, 8)
