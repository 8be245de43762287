"""Labels of whole data sets: what is decided from all files together, and what a report is told of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from optimize.data.layout import Rows, read_labels
from optimize.data.splits import Wanted, load_splits
from optimize.errors import DataError
from optimize.heads import HEADS
from optimize.interfaces import Row

TEXTS, TAGS, CHOICES = "text-classification", "token-classification", "multiple-choice"
FIVE = {"id2label": {str(index): f"LABEL_{index}" for index in range(5)}}
NAMES = ["O", "B-PER", "I-PER"]
UNNAMED = {"id2label": {str(index): f"LABEL_{index}" for index in range(3)}}


def table(split: str, column: str, values: list[Any], **more: Any) -> list[Row]:
    """Rows that are like no others, with labels."""
    rows: list[Row] = []
    for number, value in enumerate(values):
        words = (
            {"tokens": [split, *map(str, range(1, len(value)))]} if column == "tags" else {"text": f"{split} {number}"}
        )
        rows.append({**words, column: value, **more})
    return rows


def read(head: str, config: dict[str, Any], *tables: Any) -> tuple[str, list[Rows]]:
    """What is said of the labels of tables, and the tables as a run has them."""
    columns = {"context": "text"} if head == CHOICES else {}
    names = [f"split {number}" for number in range(len(tables))]
    pairs = zip(tables, names, strict=True)
    found = [Rows(each, HEADS[head], columns, where=name, files=()) for each, name in pairs]
    return read_labels(found, HEADS[head], config), found


def labels_of(rows: Rows, role: str = "label") -> list[Any]:
    return [row[role] for _, row in rows.draw(range(len(rows)))]


def test_labels_are_counted_from_one_where_any_row_of_any_file_shows_it() -> None:
    few, many = table("few", "label", [1, 2, 3, 4]), table("many", "label", [*[1] * 50, 5])

    words, (first, second) = read(TEXTS, FIVE, few, many)

    assert labels_of(first) == [0, 1, 2, 3]
    assert labels_of(second) == [0] * 50 + [4]
    assert words == "1 to 5 as classes 0 to 4"


def test_labels_that_may_be_counted_from_either_are_refused_with_their_file() -> None:
    with pytest.raises(DataError, match=r"^split 0: labels are 1 to 4, .* write class names as labels$"):
        read(TEXTS, FIVE, table("a", "label", [1, 2, 3, 4]))


def test_a_file_whose_labels_are_hidden_says_nothing_of_those_that_are_not() -> None:
    words, (first, second) = read(TEXTS, UNNAMED, table("a", "label", [0, 1, 1]), table("b", "label", [-1] * 2))

    assert (labels_of(first), labels_of(second)) == ([0, 1, 1], [-1, -1])
    assert words == "class ids"


def test_names_in_one_file_and_class_ids_in_the_other_are_both_said() -> None:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["good", "bad"])})
    declared = Dataset.from_list(table("a", "label", [0, 1, 1]), features=features)

    config = {"id2label": {"0": "bad", "1": "good"}}
    words, (first, second) = read(TEXTS, config, table("b", "label", ["Good ", "bad"]), declared)

    assert words == "names; names, which the data set declares"
    assert (labels_of(first), labels_of(second)) == ([1, 0], [1, 0, 0])


def test_names_that_the_data_set_gives_to_tags_reach_the_score() -> None:
    features = Features({"tokens": List(Value("string")), "tags": List(ClassLabel(names=NAMES))})
    declared = Dataset.from_list(table("a", "tags", [[1, 2, 0], [0, 0, 1]]), features=features)

    words, (rows,) = read(TAGS, UNNAMED, declared)

    assert words == "class ids, which the data set names in this order"
    assert rows[0] == {"tokens": ["a", "1", "2"], "tags": [1, 2, 0], "classes": tuple(NAMES)}
    assert HEADS[TAGS].scoring([rows[0]], UNNAMED).startswith("IOB2, entities counted as")


def test_the_same_tags_without_names_are_words() -> None:
    words, (rows,) = read(TAGS, UNNAMED, table("a", "tags", [[1, 2, 0], [-100, 0, 0]]))

    assert words == "class ids"
    assert labels_of(rows, "tags") == [[1, 2, 0], [-100, 0, 0]]
    assert HEADS[TAGS].scoring([rows[0]], UNNAMED) == "no entities among the classes, so words are scored"


@pytest.mark.parametrize(
    ("labels", "ids", "words"),
    [
        ([1, 2, 3], [0, 1, 2], "1 to 3 as choices 0 to 2"),
        (["3", "1", "2"], [2, 0, 1], "1 to 3 as choices 0 to 2"),
        ([0, 1, 1], [0, 1, 1], "choices counted from 0"),
        ([1, 1, 1], [1, 1, 1], "choices counted from 0"),
        ([0, 3], [0, 3], "choices counted from 0"),
        (["A", "c", "B"], ["A", "c", "B"], "letters of the choices"),
    ],
)
def test_choices_are_counted_from_one_where_all_numbers_show_it(labels, ids, words) -> None:
    said, (rows,) = read(CHOICES, {}, table("a", "label", labels, choices=["x", "y", "z"]))

    assert labels_of(rows) == ids
    assert said == words


def test_names_of_choices_stay_names() -> None:
    choices = {"text": ["x", "y"], "label": ["2", "1"]}

    words, (rows,) = read(CHOICES, {}, table("a", "label", ["1", "2"], choices=choices))

    assert labels_of(rows) == ["1", "2"]
    assert words == "names of the choices"


def test_choices_that_may_be_counted_from_either_are_refused() -> None:
    with pytest.raises(DataError, match=r"^split 0: labels are 1 to 2 for 3 choices, .*; write letters as labels"):
        read(CHOICES, {}, table("a", "label", [1, 2, 1, 2], choices=["x", "y", "z"]))


def test_a_run_is_told_how_labels_are_read_and_tags_scored(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        rows = table(split, "tags", [["b_per", "I-PER", "o"], ["O", "B-PER"], ["O"]])
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    wanted = Wanted(str(tmp_path), None, {}, None, 99, 2, 1, seed=0)

    splits = load_splits(wanted, HEADS[TAGS], {"id2label": dict(enumerate(NAMES))})

    assert splits.labels == "names; IOB2, entities counted as conlleval and seqeval's default do"
    assert [row["tags"] for row in splits.certification] == [[1, 2, 0], [0, 1], [0]]
