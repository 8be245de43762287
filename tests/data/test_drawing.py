"""Which side of a cut a row is on, and what becomes of rows that cannot be used."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from optimize.data.drawing import content_digest
from optimize.data.splits import load_splits
from optimize.data.wanted import Splits, Wanted
from optimize.errors import DataError
from optimize.heads import HEADS

HEAD = HEADS["text-classification"]
SENTIMENT = {"id2label": {"0": "negative", "1": "positive"}}
Rows = list[dict[str, Any]]


def reviews(count: int, start: int = 0) -> Rows:
    return [{"text": f"review {i}", "label": i % 2} for i in range(start, start + count)]


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Splits]:
    """Write the rows of splits, and load them."""

    def act(files: dict[str, Rows], **changes: Any) -> Splits:
        for split, rows in files.items():
            (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        usual = {"examples": 1000, "calibration_examples": 8, "tuning_examples": 1000, "seed": 0}
        return load_splits(Wanted(str(tmp_path), None, {}, None, **(usual | changes)), HEAD, SENTIMENT)

    return act


def sides(splits: Splits) -> tuple[set[str], set[str]]:
    others = (*splits.calibration, *splits.tuning, *splits.training)
    return {row["text"] for row in splits.certification}, {row["text"] for row in others}


def test_rows_that_are_added_move_no_other_to_the_other_side(load) -> None:
    first, others = sides(load({"train": reviews(60)}))
    grown, grown_others = sides(load({"train": reviews(40, 500) + reviews(60)[::-1]}, seed=5))

    assert (first < grown, others < grown_others) == (True, True)
    assert not grown & grown_others


def test_a_row_that_is_there_twice_is_on_one_side_whatever_its_labels(load) -> None:
    rows = [{**row, "label": label} for row in reviews(30) for label in (0, 1)]

    certified, others = sides(load({"train": rows}))

    assert not certified & others
    assert len(certified | others) == 30


def test_both_sides_are_drawn_from_where_the_split_is_larger_than_what_is_asked_for(load) -> None:
    splits = load({"train": reviews(500)}, examples=20, tuning_examples=5, training_examples=10)

    assert [len(part) for part in (splits.certification, splits.calibration, splits.tuning)] == [20, 8, 5]
    assert len(splits.training) == 10
    certified, others = sides(splits)
    assert all(int(content_digest({"text": text}, HEAD)[0], 16) < 8 for text in certified)
    assert all(int(content_digest({"text": text}, HEAD)[0], 16) >= 8 for text in others)


def test_two_splits_are_not_cut(load) -> None:
    splits = load({"train": reviews(30), "validation": reviews(9, 100)})

    assert len(splits.certification) == 9
    assert [record.notes for record in splits.records.values()] == [[], [], []]


def spoilt(rows: Rows, *places: int, **values: object) -> Rows:
    return [{**row, **values} if place in places else row for place, row in enumerate(rows)]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"text": None}, "has no text; give a string"),
        ({"label": None}, "has no label"),
        ({"label": 7}, "label 7 is no"),
    ],
)
def test_few_rows_that_cannot_be_used_are_left_out_and_said(load, values: dict[str, object], says: str) -> None:
    rows = spoilt(reviews(300, 1000), 4, 217, **values)

    splits = load({"train": reviews(50), "validation": rows})

    (note,) = splits.records["certification"].notes
    assert note.startswith(f"validation.jsonl: left out 2 of 300 rows drawn, which cannot be used: line 5: {says}")
    assert "| line 218: " in note
    assert splits.notes == (note,)
    assert splits.certification == tuple(row for place, row in enumerate(reviews(300, 1000)) if place not in (4, 217))
    assert splits.records["tuning"].notes == []


def test_others_take_the_places_of_rows_that_are_left_out(load) -> None:
    files = {"train": reviews(50), "validation": reviews(400, 1000)}
    drawn = load(files, examples=200).certification
    bad = int(drawn[20]["text"].split()[1]) - 1000
    files["validation"] = spoilt(files["validation"], bad, text=None)

    splits = load(files, examples=200)

    assert splits.records["certification"].count == 200
    assert len({row["text"] for row in splits.certification} & {row["text"] for row in drawn}) == 199


def test_rows_for_stages_are_left_out_and_said_of_all_that_were_drawn_together(load) -> None:
    files = {"train": spoilt(reviews(400), 7, label=None), "validation": reviews(9, 1000)}

    splits = load(files, training_examples=42, tuning_examples=350)

    for name in ("calibration", "tuning", "training"):
        (note,) = splits.records[name].notes
        assert note.startswith("train.jsonl: left out 1 of 400 rows drawn, which cannot be used: line 8: has no label")
    assert splits.records["certification"].notes == []


def test_more_than_the_share_refuse_the_run(load) -> None:
    files = {"train": reviews(50), "validation": spoilt(reviews(200, 1000), 4, 90, 170, text=None)}

    with pytest.raises(DataError, match=r"validation\.jsonl: 3 of 200 rows cannot be used: line 5: has no text"):
        load(files)
    assert load(files, max_unusable=0.015).records["certification"].count == 197
    with pytest.raises(DataError, match=r"3 of 200 rows"):
        load(files, max_unusable=0.0)


def test_a_table_whose_every_replacement_is_bad_is_refused(load) -> None:
    rows = spoilt(reviews(4000, 1000), *range(4000), text=None)
    good = load({"train": reviews(50), "validation": reviews(4000, 1000)}, examples=200).certification
    for row in good[1:]:
        rows[int(row["text"].split()[1]) - 1000] = row

    with pytest.raises(DataError, match=r"3,801 of 4,000 rows cannot be used"):
        load({"train": reviews(50), "validation": rows}, examples=200)
