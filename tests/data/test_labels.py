from __future__ import annotations

from typing import Any

import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from optimize.data.classes import classes_of
from optimize.data.columns import read_column
from optimize.data.labels import Reading, match_labels, match_tags
from optimize.errors import DataError

SENTIMENT = {"id2label": {"0": "NEGATIVE", "1": "POSITIVE"}}
NEWS = {"id2label": {"0": "World", "1": "Sports", "2": "Business"}}
PLACEHOLDERS = {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}
STARS = {"id2label": {"0": "1", "1": "2", "2": "3"}}
MIXED = {"id2label": {"0": "1", "1": "2", "2": "other"}}
REGRESSION = {"id2label": {"0": "LABEL_0"}}


def plain(*labels: Any) -> list[dict[str, Any]]:
    """A table whose labels have no declared names."""
    return [{"label": label} for label in labels]


def named(names: list[str], *labels: Any) -> Dataset:
    """A table whose class numbers have names."""
    return Dataset.from_dict({"label": list(labels)}, Features({"label": ClassLabel(names=names)}))


def read(table: Any, config: dict[str, Any]) -> Reading:
    return match_labels(read_column(table, "label"), config)


def matched(table: Any, config: dict[str, Any]) -> list[Any]:
    reading = read(table, config)
    return [reading.match(row["label"]) for row in table]


@pytest.mark.parametrize(
    ("labels", "config", "ids"),
    [
        (("POSITIVE", "NEGATIVE"), SENTIMENT, [1, 0]),
        (("positive", "Negative"), SENTIMENT, [1, 0]),
        ((1, 0), SENTIMENT, [1, 0]),
        (("1", "0"), SENTIMENT, [1, 0]),
        ((1.0, 0.0), SENTIMENT, [1, 0]),
        ((True, False), SENTIMENT, [1, 0]),
        (("LABEL_1", "label_0"), PLACEHOLDERS, [1, 0]),
        ((1, 0), {"num_labels": 2}, [1, 0]),
        ((1, 0), {}, [1, 0]),
        ((1, 2, 3), STARS, [0, 1, 2]),
        ((1, 1), STARS, [0, 0]),
        ((2.0, 1.0), STARS, [1, 0]),
        (("3", "1"), STARS, [2, 0]),
        (([1, 3], [2]), STARS, [[1, 0, 1], [0, 1, 0]]),
        ((-1, 0, 1), {"id2label": {"0": "-1", "1": "0", "2": "1"}}, [0, 1, 2]),
        ((1, 0), {"id2label": {"0": "1", "1": "0"}}, [0, 1]),
        ((1, 0), {"id2label": {"0": "0", "1": "1"}}, [1, 0]),
        ((10, 2), {"id2label": {"0": "10", "1": "2"}}, [0, 1]),
        ((True, False), {"id2label": {"0": "True", "1": "False"}}, [0, 1]),
        (("1", "2", "other", 0), MIXED, [0, 1, 2, 0]),
        ((1, 2), {"id2label": {"0": "none", "1": "1", "2": "2"}}, [1, 2]),
    ],
)
def test_labels_match_by_name_or_by_number(labels: tuple[Any, ...], config: dict[str, Any], ids: list[int]) -> None:
    assert matched(plain(*labels), config) == ids


def test_names_decide_where_the_data_set_numbers_its_classes_otherwise() -> None:
    table = named(["positive", "negative"], 0, 1, 0)

    assert matched(table, SENTIMENT) == [1, 0, 1]


def test_numbers_decide_where_the_checkpoint_has_placeholders_only() -> None:
    table = named(["positive", "negative"], 0, 1)

    assert matched(table, PLACEHOLDERS) == [0, 1]


def test_class_names_that_are_their_own_numbers_are_no_names() -> None:
    assert matched(named(["0", "1"], 1, 0), SENTIMENT) == [1, 0]


def test_digits_in_another_order_are_names_and_refused() -> None:
    with pytest.raises(DataError, match="label '1' is not in the checkpoint"):
        matched(named(["1", "0"], 1, 0), SENTIMENT)


def test_a_name_as_written_goes_before_one_that_differs_in_case() -> None:
    config = {"id2label": {"0": "b-per", "1": "B-PER"}}

    assert matched(plain("b-per", "B-PER"), config) == [0, 1]


def test_fewer_classes_than_the_checkpoint_has_are_fine() -> None:
    assert matched(named(["business", "world"], 0, 1), NEWS) == [2, 0]


def test_lists_of_labels_are_matched_one_by_one() -> None:
    table = Dataset.from_dict(
        {"label": [[0, 1], [], [1]]}, Features({"label": List(ClassLabel(names=["sports", "world"]))})
    )

    assert matched(table, NEWS | {"problem_type": "multi_label_classification"}) == [
        [1, 1, 0],
        [0, 0, 0],
        [1, 0, 0],
    ]


def test_lists_of_names_without_declared_classes_are_matched_too() -> None:
    assert matched(plain(["World", "sports"], []), NEWS) == [[1, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize("config", [REGRESSION, NEWS | {"problem_type": "regression"}])
def test_a_regression_keeps_its_numbers(config: dict[str, Any]) -> None:
    assert matched(plain(2.5, -1, "3"), config) == [2.5, -1.0, 3.0]


@pytest.mark.parametrize(
    ("label", "config", "says"),
    [
        ("neutral", SENTIMENT, "label 'neutral' is not in the checkpoint (NEGATIVE, POSITIVE)"),
        ("neutral", {"num_labels": 3}, "label 'neutral' is not in the checkpoint (0 to 2)"),
        (2, SENTIMENT, "label 2 is not in the checkpoint, which has classes 0 to 1"),
        (-2, SENTIMENT, "label -2 is not in the checkpoint"),
        ("2", SENTIMENT, "label '2' is not in the checkpoint"),
        (0.5, SENTIMENT, "label 0.5 is not in the checkpoint"),
        (float("nan"), SENTIMENT, "label nan is not in the checkpoint"),
        (float("inf"), SENTIMENT, "label inf is not in the checkpoint"),
        (10**400, SENTIMENT, "label 10000000"),
        ([10**5000], SENTIMENT, "label a number that is too long to print is not in the checkpoint"),
        ("9" * 5000, SENTIMENT, "label '9999"),
        ("a\nb", SENTIMENT, "label 'a\\nb' is not in the checkpoint"),
        (0, STARS, "label 0 is none of the checkpoint's class names (1, 2, 3), and by its place would be '1'; write"),
        ("0", STARS, "label 0 is none of the checkpoint's class names (1, 2, 3), and by its place would be '1'; write"),
        (4, STARS, "label 4 is not in the checkpoint"),
        (1, MIXED, "label 1 is the name of class 0 and the place of '2'; write class names as labels, as text"),
        ({"a": 1}, SENTIMENT, "is not a class"),
        (-1, SENTIMENT, "has no label; name a labelled split with --certify-on"),
        (None, SENTIMENT, "has no label"),
        ([0, None], SENTIMENT, "has no label"),
        ("good", REGRESSION, "'good' is not a number, and the checkpoint is a regression"),
        (None, REGRESSION, "None is not a number"),
        (float("nan"), REGRESSION, "nan is not a number"),
        (10**400, REGRESSION, "is not a number"),
    ],
)
def test_labels_that_do_not_match_are_refused(label: Any, config: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError) as refused:
        matched(plain(label), config)

    message = str(refused.value)
    assert says in message
    assert "\n" not in message
    assert "; " in message


def test_a_declared_class_that_the_checkpoint_lacks_is_refused_before_any_row() -> None:
    table = named(["negative", "neutral", "positive"], 0, 2)

    with pytest.raises(DataError, match=r"label 'neutral' is not in the checkpoint"):
        read(table, SENTIMENT)


def test_an_unlabelled_row_among_declared_classes_is_refused() -> None:
    table = Dataset.from_dict({"label": [0, -1]}, Features({"label": ClassLabel(names=["negative", "positive"])}))

    with pytest.raises(DataError, match="has no label"):
        matched(table, SENTIMENT)


def test_a_column_without_class_names_has_none() -> None:
    table = Dataset.from_dict({"label": ["positive"]}, Features({"label": Value("string")}))

    assert matched(table, SENTIMENT) == [1]


@pytest.mark.parametrize(("config", "count"), [(NEWS, 3), ({"num_labels": 5}, 5), ({}, 2), ({"id2label": None}, 2)])
def test_the_number_of_classes_is_the_configs_or_two(config: dict[str, Any], count: int) -> None:
    assert classes_of(config).count == count
