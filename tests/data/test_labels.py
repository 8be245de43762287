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


def test_labels_of_another_kind_are_refused_row_by_row() -> None:
    table = Dataset.from_dict({"label": [{"a": 1}, None]})

    assert read_column(table, "label").seen == ()
    with pytest.raises(DataError, match="is not a class; check --columns"):
        matched(table, SENTIMENT)


@pytest.mark.parametrize("rows", [[[1, 2], [], None], [[1.0], [2.0]]])
def test_a_column_of_lists_is_read_alike_from_either_kind_of_table(rows: list[Any]) -> None:
    ours, arrow = read_column(plain(*rows), "label"), read_column(Dataset.from_dict({"label": rows}), "label")

    assert set(map(str, arrow.seen)) == set(map(str, ours.seen)) - {"None"}
    assert arrow.lengths == ours.lengths


def test_an_unlabelled_row_among_declared_classes_is_refused() -> None:
    table = Dataset.from_dict({"label": [0, -1]}, Features({"label": ClassLabel(names=["negative", "positive"])}))

    with pytest.raises(DataError, match="has no label"):
        matched(table, SENTIMENT)


def test_a_column_without_class_names_has_none() -> None:
    table = Dataset.from_dict({"label": ["positive"]}, Features({"label": Value("string")}))

    assert matched(table, SENTIMENT) == [1]


SIGNED = {"id2label": {"0": "Negative", "1": "Neutral", "2": "Positive"}}
TURNED = {"id2label": {"0": "positive", "1": "neutral", "2": "negative"}}
FIVE = {"id2label": {str(index): f"LABEL_{index}" for index in range(5)}}
FIVE_STARS = {"id2label": {str(index): f"{index + 1} star{'s' if index else ''}" for index in range(5)}}
THREE = {"num_labels": 3}
SPAM = {"id2label": {"0": "not_spam", "1": "Spam"}}
YES = {"id2label": {"0": "no", "1": "yes"}}
ALIKE = {"id2label": {"0": "not spam", "1": "Not-Spam"}}


@pytest.mark.parametrize(
    ("labels", "config", "ids", "words"),
    [
        (("Negative ", "positive", "NEGATIVE"), SENTIMENT, [0, 1, 0], "names"),
        (("not spam", "Not-Spam", "NOT  SPAM", "spam\n"), SPAM, [0, 0, 0, 1], "names"),
        (("not spam", "Not-Spam"), ALIKE, [0, 1], "names"),
        (("POSITIVE", "0"), SENTIMENT, [1, 0], "names and class ids (NEGATIVE, POSITIVE)"),
        ((1, 2, 3, 4, 5), FIVE, [0, 1, 2, 3, 4], "1 to 5 as classes 0 to 4"),
        (("5.0", "4", "3", "2", "1"), FIVE, [4, 3, 2, 1, 0], "1 to 5 as classes 0 to 4"),
        ((1, 2), SENTIMENT, [0, 1], "1 to 2 as classes 0 to 1 (NEGATIVE, POSITIVE)"),
        ((1, 2, 4), FIVE, [1, 2, 4], "class ids"),
        ((0, 4, 2), FIVE_STARS, [0, 4, 2], "class ids (1 star, 2 stars, 3 stars, 4 stars, 5 stars)"),
        ((1, 4), FIVE_STARS, [0, 3], "1 to 5 as classes 0 to 4 (1 star, 2 stars, 3 stars, 4 stars, 5 stars)"),
        ((1, 3), STARS, [0, 2], "numbers that are names of classes"),
        ((-1, 0, 1), THREE, [0, 1, 2], "-1, 0, 1 as classes 0 to 2"),
        ((-1, 0, 1), TURNED, [2, 1, 0], "-1, 0, 1 as negative, neutral, positive"),
        ((-1.0, 1.0), SENTIMENT, [0, 1], "-1, 1 as NEGATIVE, POSITIVE"),
        ((True, False), YES, [1, 0], "true and false as classes 1 and 0 (no, yes)"),
        (("TRUE", "False"), {"id2label": {"0": "true", "1": "false"}}, [0, 1], "names"),
        (("true", "FALSE "), PLACEHOLDERS, [1, 0], "true and false as classes 1 and 0"),
        (("YES", "no"), YES, [1, 0], "names"),
    ],
)
def test_labels_as_people_write_them(labels: Any, config: dict[str, Any], ids: list[int], words: str) -> None:
    assert matched(plain(*labels), config) == ids
    assert read(plain(*labels), config).words == words


@pytest.mark.parametrize(
    ("labels", "config", "says"),
    [
        (("NOT SPAM",), ALIKE, "may be class 0 ('not spam') or 1 ('Not-Spam'); write it as the checkpoint does"),
        (("a",), {"id2label": {"0": "a", "1": "a"}}, "label 'a' may be class 0 ('a') or 1 ('a')"),
        (("-1",), {"id2label": {"0": "0", "1": "1"}}, "label '-1' is not in the checkpoint"),
        ((1, 2, 3, 4), FIVE, "labels are 1 to 4, and the checkpoint has 5 classes"),
        ((0, 1, 2, 3, 4, 5), FIVE, "label 5 is not in the checkpoint, which has classes 0 to 4"),
        ((5, 3), FIVE, "label 5 is not in the checkpoint, which has classes 0 to 4"),
        ((-1, 0, 1, 2), THREE, "has no label; name a labelled split"),
        ((-1,), THREE, "has no label; name a labelled split"),
        ((-1, 0, 1), NEWS, "has no label; name a labelled split"),
        ((-1, 0, 1), PLACEHOLDERS, "has no label; name a labelled split"),
        ((True, False), THREE, "is true or false, and the checkpoint has 3 classes (0 to 2); check --columns"),
        (("yes", "no"), PLACEHOLDERS, "label 'yes' is not in the checkpoint (LABEL_0, LABEL_1); name the classes in"),
        (("joy, anger",), SENTIMENT, "label 'joy, anger' is not in the checkpoint"),
    ],
)
def test_near_misses_are_refused(labels: Any, config: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError) as refused:
        matched(plain(*labels), config)

    assert says in str(refused.value)


EMOTIONS = {"id2label": {"0": "joy", "1": "anger", "2": "mild fear"}, "problem_type": "multi_label_classification"}
SILENT = {"id2label": EMOTIONS["id2label"]}
COMMAS = {"id2label": {"0": "hate, threats", "1": "joy"}, "problem_type": "multi_label_classification"}


@pytest.mark.parametrize(
    ("labels", "config", "sets", "words"),
    [
        (("joy, anger", "Mild_Fear", ""), EMOTIONS, ["110", "001", "000"], "names, several a text, separated by , or"),
        (("joy;anger", "joy | mild fear", " "), SILENT, ["110", "101", "000"], "names, several a text"),
        (("0,2", "1"), EMOTIONS, ["101", "010"], "class ids (joy, anger, mild fear), several a text"),
        (("['joy', 'anger']", "[]"), EMOTIONS, ["110", "000"], "names, several a text"),
        (("[0, 1, 1]", "[0, 0, 0]"), EMOTIONS, ["011", "000"], "0 or 1 for each class, in lists"),
        (([0.0, 1.0, 1.0], [], [0.0, 0.0, 0.0]), EMOTIONS, ["011", "000", "000"], "0 or 1 for each class, in lists"),
        (([True, False, True],), SILENT, ["101"], "0 or 1 for each class, in lists"),
        (([1, 0, 2], [1]), EMOTIONS, ["111", "010"], "class ids (joy, anger, mild fear), several a text, in lists"),
        ((["Joy"], []), SILENT, ["100", "000"], "names, several a text, in lists"),
        (([1, 2], [3]), EMOTIONS, ["110", "001"], "1 to 3 as classes 0 to 2 (joy, anger, mild fear), several a text"),
        (("hate, threats", "joy; Hate, Threats"), COMMAS, ["10", "11"], "names, several a text, separated by ; or |"),
        ((0, 2), EMOTIONS, ["100", "001"], "class ids (joy, anger, mild fear), several a text"),
    ],
)
def test_several_labels_of_a_text(labels: Any, config: dict[str, Any], sets: list[str], words: str) -> None:
    assert ["".join(map(str, found)) for found in matched(plain(*labels), config)] == sets
    assert read(plain(*labels), config).words.startswith(words)


@pytest.mark.parametrize(
    ("labels", "config", "says"),
    [
        (("joy, hate",), EMOTIONS, "label 'hate' is not in the checkpoint (joy, anger, mild fear)"),
        (("hate, threats, joy",), COMMAS, "label 'hate, threats, joy' is not in the checkpoint"),
        (([0.0, 0.7, 1.0],), EMOTIONS, "label 0.7 is not in the checkpoint"),
        (([0, 3],), EMOTIONS, "label 3 is not in the checkpoint"),
        (([0, None],), EMOTIONS, "has no label"),
        ((None,), EMOTIONS, "has no label"),
    ],
)
def test_sets_that_do_not_fit_are_refused(labels: Any, config: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError) as refused:
        matched(plain(*labels), config)

    assert says in str(refused.value)


def test_lists_of_ids_as_long_as_there_are_classes_are_ids_where_the_data_set_names_them() -> None:
    table = Dataset.from_dict({"label": [[0, 1], [1]]}, Features({"label": List(ClassLabel(names=["anger", "joy"]))}))

    assert matched(table, SILENT) == [[1, 1, 0], [1, 0, 0]]


ONE = {"num_labels": 1}
BINARY = {"id2label": {"0": "toxic"}, "problem_type": "multi_label_classification"}


@pytest.mark.parametrize(
    ("labels", "config", "ids", "words"),
    [
        (
            (0, 1),
            ONE,
            [[0], [1]],
            "0 or 1, for one output: 1 where its sigmoid is above 0.5 (the config has no problem",
        ),
        ((1.0, 0.0), ONE, [[1], [0]], "0 or 1, for one output"),
        ((True, False), ONE, [[1], [0]], "0 or 1, for one output"),
        (("TRUE", "false"), ONE, [[1], [0]], "0 or 1, for one output"),
        ((1, 1), BINARY, [[1], [1]], "0 or 1, for one output: 1 where its sigmoid is above 0.5"),
        (("Toxic", "0"), BINARY, [[1], [0]], "0 or 1, for one output"),
        (([1], [0]), BINARY, [[1], [0]], "0 or 1 for each class, in lists"),
        (([1], [0]), ONE | {"problem_type": "single_label_classification"}, [[1], [0]], "0 or 1 for each class"),
        ((["toxic"], []), BINARY, [[1], [0]], "names, several a text, in lists"),
        ((0, 1), ONE | {"problem_type": "regression"}, [0.0, 1.0], "numbers"),
        ((0, 1, 0.5), ONE, [0.0, 1.0, 0.5], "numbers"),
        ((1, 1), ONE, [1.0, 1.0], "numbers"),
        ((-1, 1), ONE, [-1.0, 1.0], "numbers"),
    ],
)
def test_one_output_is_a_class_or_a_number(labels: Any, config: dict[str, Any], ids: list[Any], words: str) -> None:
    assert matched(plain(*labels), config) == ids
    assert read(plain(*labels), config).words.startswith(words)


def test_two_declared_classes_of_one_output_are_in_their_order() -> None:
    assert matched(named(["not duplicate", "duplicate"], 1, 0), ONE) == [[1], [0]]


@pytest.mark.parametrize(
    ("label", "config", "says"),
    [
        (2, BINARY, "label 2 is not in the checkpoint, which has classes 0 to 1"),
        (0.5, BINARY, "label 0.5 is not in the checkpoint"),
        ("clean", BINARY, "label 'clean' is not in the checkpoint"),
        (-1, BINARY, "has no label; name a labelled split"),
        ("toxic", ONE, "'toxic' is not a number, and the checkpoint is a regression"),
    ],
)
def test_what_one_output_cannot_tell_is_refused(label: Any, config: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError) as refused:
        matched(plain(label), config)

    assert says in str(refused.value)


IOB = {"id2label": {"0": "O", "1": "B-PER", "2": "I-PER"}}
UNNAMED = {"id2label": {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}}
NAMES = ["O", "B-PER", "I-PER"]


def tagged(table: Any, config: dict[str, Any]) -> tuple[list[Any], Reading]:
    reading = match_tags(read_column(table, "label"), config)
    return [reading.match(row["label"]) for row in table], reading


def sequences(names: list[str], *tags: list[int]) -> Dataset:
    """A table of lists whose numbers have names."""
    return Dataset.from_dict({"label": [*tags]}, Features({"label": List(ClassLabel(names=names))}))


@pytest.mark.parametrize(
    ("table", "config", "ids", "words"),
    [
        (plain(["o", "b_per", "I-PER "]), IOB, [[0, 1, 2]], "names"),
        (plain([0, -100, 2]), IOB, [[0, -100, 2]], "class ids (O, B-PER, I-PER)"),
        (plain(["S-PER", "O", "B-PER", "E-PER"]), IOB, [[1, 0, 1, 2]], "names, in a longer scheme (S-PER as B-PER)"),
        (plain(["U-PER", "O", "B-PER", "L-PER"]), IOB, [[1, 0, 1, 2]], "names, in a longer scheme (U-PER as B-PER)"),
        (sequences(["I-PER", "B-PER", "O"], [2, 1, -100]), IOB, [[0, 1, -100]], "names, which the data set declares"),
        (
            sequences(["O", "S-PER"], [0, 1]),
            IOB,
            [[0, 1]],
            "names, which the data set declares, in a longer scheme",
        ),
        (sequences(NAMES, [0, 1, 2]), UNNAMED, [[0, 1, 2]], "class ids, which the data set names in this order"),
        (plain([0, 1, 2]), UNNAMED, [[0, 1, 2]], "class ids"),
        (plain([1, 2, 1]), UNNAMED, [[1, 2, 1]], "class ids"),
    ],
)
def test_tags_as_people_have_them(table: Any, config: dict[str, Any], ids: list[Any], words: str) -> None:
    found, reading = tagged(table, config)

    assert found == ids
    assert reading.words.startswith(words)


def test_names_of_the_data_set_are_those_of_classes_without_any() -> None:
    assert tagged(sequences(NAMES, [0]), UNNAMED)[1].classes == tuple(NAMES)
    assert tagged(sequences(NAMES, [0]), IOB)[1].classes == ()


@pytest.mark.parametrize(
    ("table", "config", "says"),
    [
        (
            sequences(["O", "B-PER"], [0, 1]),
            UNNAMED,
            "names 2 tags, and the checkpoint has 3 classes without names, so",
        ),
        (plain(["O", "B-PER"]), UNNAMED, "label 'O' is not in the checkpoint (LABEL_0, LABEL_1, LABEL_2); name the"),
        (plain(["M-LOC"]), IOB, "label 'M-LOC' is not in the checkpoint"),
        (plain(["S-PER"]), {"id2label": {"0": "B-PER", "1": "E-PER"}}, "label 'S-PER' is not in the checkpoint"),
        (plain([0, -1]), IOB, "has no label"),
        (plain([[-100, 3]]), IOB, "is not a class"),
    ],
)
def test_tags_that_do_not_fit_are_refused(table: Any, config: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError) as refused:
        tagged(table, config)

    assert says in str(refused.value)


@pytest.mark.parametrize(("config", "count"), [(NEWS, 3), ({"num_labels": 5}, 5), ({}, 2), ({"id2label": None}, 2)])
def test_the_number_of_classes_is_the_configs_or_two(config: dict[str, Any], count: int) -> None:
    assert classes_of(config).count == count
