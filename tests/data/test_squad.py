"""SQuAD's nested files become rows: one a question, of which some have no answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from optimize.data.splits import Wanted, inspect_data, load_splits
from optimize.errors import DataError
from optimize.heads import HEADS

HEAD = HEADS["question-answering"]
Article = dict[str, Any]


def article(number: int, **question: Any) -> Article:
    context = f"Anna {number} lives in Paris."
    asked = {"id": f"q{number}", "question": "Where?", "answers": [{"text": "Paris", "answer_start": 16}], **question}
    return {"title": "Anna", "paragraphs": [{"context": context, "qas": [asked]}]}


def impossible(number: int) -> Article:
    plausible = [{"text": "Anna", "answer_start": 0}]
    return article(number, answers=[], is_impossible=True, plausible_answers=plausible)


@pytest.fixture
def load(tmp_path: Path) -> Callable[[object], Any]:
    """All rows of a validation.json, in the order of the questions' ids."""

    def act(content: object) -> Any:
        (tmp_path / "validation.json").write_text(json.dumps(content), encoding="utf-8")
        (tmp_path / "train.json").write_text(json.dumps([article(100 + number) for number in range(9)]))
        wanted = Wanted(str(tmp_path), None, {}, None, 99, 4, 4, 0)
        inspect_data(wanted, HEAD)
        return load_splits(wanted, HEAD, {}).certification

    return act


def test_each_question_is_a_row(load) -> None:
    rows = load({"version": "v2.0", "data": [article(0), impossible(1), article(2)]})

    assert [row["context"] for row in rows] == [f"Anna {number} lives in Paris." for number in range(3)]
    assert [row["answers"]["text"] for row in rows] == [["Paris"], [], ["Paris"]]
    assert [row["question"] for row in rows] == ["Where?"] * 3


def test_a_list_of_articles_is_enough(load) -> None:
    assert len(load([article(0), article(1)])) == 2


def test_plausible_answers_are_none_even_if_they_are_listed_as_answers(load) -> None:
    rows = load({"data": [impossible(0), article(1, is_impossible=True), article(2)]})

    assert [row["answers"]["text"] for row in rows] == [[], [], ["Paris"]]


def test_rows_that_are_not_nested_stay_as_they_are(load) -> None:
    flat = [{"context": f"{number} is it", "question": "What?", "answers": {"text": ["it"]}} for number in range(3)]

    assert [row["context"] for row in load(flat)] == ["0 is it", "1 is it", "2 is it"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([{"paragraphs": [{"context": "x"}]}], "a paragraph has no list 'qas'"),
        ([{"paragraphs": ["x"]}], "a paragraph has no list 'qas'"),
        ([{"paragraphs": [{"context": "x", "qas": ["y"]}]}], "a question is no mapping"),
        ([article(0, answers="Paris")], "'answers' are no list of mappings"),
        ([article(0, answers=["Paris"])], "'answers' are no list of mappings"),
        ([{"paragraphs": []}], "is empty"),
    ],
)
def test_articles_that_make_no_sense_are_refused(load, content: object, says: str) -> None:
    with pytest.raises(DataError, match=says) as refused:
        load(content)

    assert str(refused.value).count("\n") == 0
    assert "validation.json" in str(refused.value)


def test_a_question_without_a_context_is_refused_as_a_row(load) -> None:
    with pytest.raises(DataError, match="has no context"):
        load([article(0), {"paragraphs": [{"qas": article(1)["paragraphs"][0]["qas"]}]}])
