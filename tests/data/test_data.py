from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from optimize.data import forms
from optimize.data.layout import match_layout
from optimize.data.splits import Splits, Wanted, inspect_data, load_splits
from optimize.errors import DataError
from optimize.heads import HEADS

HEAD = "text-classification"
SENTIMENT = {"id2label": {"0": "negative", "1": "positive"}}
Rows = Sequence[dict[str, Any]]


@pytest.fixture
def load() -> Callable[..., Splits]:
    """Inspect and load a folder of data."""

    def act(folder: Path, head: str = HEAD, model: dict[str, Any] = SENTIMENT, **changes: Any) -> Splits:
        wanted = want(folder, **changes)
        inspect_data(wanted, HEADS[head])
        return load_splits(wanted, HEADS[head], model)

    return act


def want(where: Path | str, **changes: Any) -> Wanted:
    values: dict[str, Any] = {
        "config": None,
        "columns": {},
        "certify_on": None,
        "examples": 10,
        "calibration_examples": 6,
        "tuning_examples": 4,
        "seed": 0,
    }
    return Wanted(data=str(where), **(values | changes))


def reviews(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [{"text": f"review {i}", "label": i % 2} for i in range(start, start + count)]


def write(folder: Path, **files: str | bytes) -> Path:
    """Write files named split_suffix."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        path = folder / name.replace("_", ".")
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def jsonl(rows: Rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def table(rows: Rows, delimiter: str = ",") -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def parquet(rows: Rows) -> bytes:
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pa.Table.from_pylist(list(rows)), stream)
    return stream.getvalue()


FORMATS: dict[str, Callable[[Rows], str | bytes]] = {
    "jsonl": jsonl,
    "json": lambda rows: json.dumps(list(rows)),
    "csv": table,
    "tsv": lambda rows: table(rows, "\t"),
    "parquet": parquet,
}


def test_every_format_gives_the_same_splits(load, tmp_path: Path) -> None:
    train, validation = reviews(30), reviews(20, start=100)

    digests = set()
    for suffix, form in FORMATS.items():
        files = {f"train_{suffix}": form(train), f"validation_{suffix}": form(validation)}
        splits = load(write(tmp_path / suffix, **files))
        digests.add(tuple(record.digest for record in splits.records.values()))

    assert len(digests) == 1
    assert {name: record.count for name, record in splits.records.items()} == {
        "calibration": 6,
        "tuning": 4,
        "certification": 10,
    }


def test_every_format_is_covered_here() -> None:
    assert set(forms.READERS) == {f".{suffix}" for suffix in FORMATS}


@pytest.mark.parametrize("name", ["validation", "valid", "val", "dev"])
def test_the_usual_names_of_the_validation_split_are_known(load, tmp_path: Path, name: str) -> None:
    folder = write(tmp_path / "d", train_jsonl=jsonl(reviews(30)), **{f"{name}_jsonl": jsonl(reviews(5, 100))})

    assert load(folder).records["certification"].origin == "validation"
    assert load(folder, certify_on=name).records["certification"].origin == "validation"


def test_the_test_split_judges_where_there_is_no_validation(load, tmp_path: Path) -> None:
    folder = write(tmp_path / "d", train_jsonl=jsonl(reviews(30)), test_jsonl=jsonl(reviews(5, 100)))

    origins = {name: record.origin for name, record in load(folder).records.items()}

    assert origins == {"calibration": "train", "tuning": "train", "certification": "test"}


def test_a_split_that_is_not_used_may_be_broken(load, tmp_path: Path) -> None:
    folder = write(tmp_path / "d", train_jsonl=jsonl(reviews(30)), validation_jsonl=jsonl(reviews(5, 100)), test_csv="")

    assert load(folder).records["certification"].count == 5


def test_words_that_pandas_takes_for_nothing_stay_words(load, tmp_path: Path) -> None:
    rows = [{"text": text, "label": 1} for text in ("NA", "null", "None", "nan")]
    folder = write(tmp_path / "d", train_csv=table(reviews(9)), validation_csv=table(rows))

    assert [row["text"] for row in load(folder).certification] == ["NA", "null", "None", "nan"]


def test_a_byte_order_mark_is_no_part_of_a_column(load, tmp_path: Path) -> None:
    folder = write(tmp_path / "d", train_csv=table(reviews(9)), validation_csv="\ufeff" + table(reviews(3, 100)))

    assert load(folder).certification[0] == {"text": "review 100", "label": 0}


LAYOUTS: dict[str, tuple[str, dict[str, Any], dict[str, str]]] = {
    "text": (HEAD, {"text": "a", "label": 1}, {"text": "text", "label": "label"}),
    "sst2": (HEAD, {"idx": 1, "sentence": "a", "label": 1}, {"text": "sentence", "label": "label"}),
    "mrpc": (
        HEAD,
        {"sentence1": "a", "sentence2": "b", "label": 1},
        {"text": "sentence1", "text_pair": "sentence2", "label": "label"},
    ),
    "mnli": (
        HEAD,
        {"premise": "a", "hypothesis": "b", "label": 1},
        {"text": "premise", "text_pair": "hypothesis", "label": "label"},
    ),
    "emotion": (HEAD, {"text": "a", "emotion": "joy"}, {"text": "text", "label": "emotion"}),
    "stsb": (
        "feature-extraction",
        {"sentence1": "a", "sentence2": "b", "score": 1.0},
        {"text": "sentence1", "text_pair": "sentence2", "score": "score"},
    ),
    "sick": (
        "feature-extraction",
        {"sentence_A": "a", "sentence_B": "b", "relatedness_score": 1.0},
        {"text": "sentence_A", "text_pair": "sentence_B", "score": "relatedness_score"},
    ),
    "texts": ("feature-extraction", {"content": "a"}, {"text": "content"}),
    "wikitext": ("fill-mask", {"text": "a"}, {"text": "text"}),
    "conll": (
        "token-classification",
        {"tokens": ["a"], "pos_tags": [1], "ner_tags": [0]},
        {"tokens": "tokens", "tags": "ner_tags"},
    ),
    "squad": (
        "question-answering",
        {"id": "1", "title": "t", "context": "c", "question": "q", "answers": {}},
        {"id": "id", "title": "title", "context": "context", "question": "question", "answers": "answers"},
    ),
    "swag": (
        "multiple-choice",
        {"sent1": "a", "sent2": "b", **{f"ending{i}": "c" for i in range(4)}, "label": 1},
        {"context": "sent1", "start": "sent2", **{f"choice{i}": f"ending{i}" for i in range(4)}, "label": "label"},
    ),
    "hellaswag": (
        "multiple-choice",
        {"ctx_a": "a", "ctx_b": "b", "endings": ["c"], "label": "1"},
        {"context": "ctx_a", "start": "ctx_b", "choices": "endings", "label": "label"},
    ),
}


@pytest.mark.parametrize(("head", "row", "roles"), LAYOUTS.values(), ids=LAYOUTS)
def test_known_data_sets_need_no_column_names(head: str, row: dict[str, Any], roles: dict[str, str]) -> None:
    assert match_layout(HEADS[head], list(row), {}, where="here") == roles


def test_every_head_has_a_known_data_set_here() -> None:
    assert {head for head, _, _ in LAYOUTS.values()} == set(HEADS)


@pytest.mark.parametrize("head", HEADS)
def test_the_demos_data_of_every_head_load(load, data_folder, checkpoint, head: str) -> None:
    config = json.loads((checkpoint(head) / "config.json").read_text(encoding="utf-8"))

    splits = load(data_folder(head), head, config)

    assert {name: len(getattr(splits, name)) for name in splits.records} == {
        "calibration": 6,
        "tuning": 4,
        "certification": 10,
    }


def test_columns_can_be_named_outright(load, tmp_path: Path) -> None:
    rows = [{"text": "not this", "body": f"this {i}", "stars": i % 2, "label": 7} for i in range(9)]
    folder = write(tmp_path / "d", train_jsonl=jsonl(rows))

    splits = load(folder, columns={"text": "body", "label": "stars"}, examples=1)

    (row,) = splits.certification
    assert (row["text"].split()[0], set(row), row["label"] in (0, 1)) == ("this", {"text", "label"}, True)


def test_named_columns_of_a_pair_make_a_pair() -> None:
    columns = {"text": "left", "text_pair": "right"}

    roles = match_layout(HEADS[HEAD], ["left", "right", "label"], columns, where="here")

    assert roles == {"text": "left", "text_pair": "right", "label": "label"}


REFUSALS: dict[str, tuple[dict[str, str | bytes], dict[str, Any], str]] = {
    "an empty file": ({"validation_jsonl": ""}, {}, "validation.jsonl: is empty"),
    "a blank file": ({"validation_jsonl": "\n \n"}, {}, "validation.jsonl: is empty"),
    "an empty list": ({"validation_json": "[]"}, {}, "validation.json: is empty"),
    "an empty table": ({"validation_csv": ""}, {}, "validation.csv: is empty"),
    "a header alone": ({"validation_csv": "text,label\n"}, {}, "validation.csv: is empty"),
    "an empty Parquet file": ({"validation_parquet": parquet(reviews(1)[:0])}, {}, "validation.parquet: is empty"),
    "no column": ({"validation_jsonl": '{"texte": "a", "label": 1}\n'}, {}, "there are texte, label; name them with"),
    "no label column": ({"validation_jsonl": '{"text": "a"}\n'}, {}, "label|labels|score"),
    "a column that is not there": ({}, {"columns": {"text": "body"}}, "no column 'body' for role 'text'"),
    "a role that is not there": ({}, {"columns": {"txt": "text"}}, "has no role 'txt'; its roles are"),
    "another label": (
        {"validation_jsonl": '{"text": "a", "label": "so-so"}\n'},
        {},
        "validation.jsonl, line 1: label 'so-so'",
    ),
    "no labels": (
        {"validation_jsonl": jsonl([{"text": "a", "label": -1}] * 3)},
        {},
        "has -1 for every label; name a labelled split",
    ),
    "null labels": (
        {"validation_jsonl": jsonl([{"text": "a", "label": None}] * 3)},
        {},
        "3 of 3 rows cannot be used: line 1: has no label",
    ),
    "an unknown split": ({}, {"certify_on": "tset"}, "no split 'tset'; there are train, validation"),
    "no JSON": ({"validation_jsonl": "{broken\n"}, {}, "validation.jsonl: cannot be read"),
    "no JSON later on": ({"validation_jsonl": jsonl(reviews(9)) + "{broken\n"}, {}, "validation.jsonl: cannot be read"),
    "no object": ({"validation_jsonl": "[1, 2]\n"}, {}, "its first row is not a JSON object"),
    "no text": ({"validation_jsonl": b"\xff\xfe\x00"}, {}, "validation.jsonl: cannot be read"),
    "no Parquet": ({"validation_parquet": b"PAR1 not really"}, {}, "validation.parquet: cannot be read"),
    "two files": ({"validation_jsonl": jsonl(reviews(3)), "dev_csv": "text,label\na,1\n"}, {}, "are both 'validation'"),
    "a configuration": ({}, {"config": "sst2"}, "--data-config: "),
    "a revision": ({}, {"revision": "main"}, "--data-revision: "),
    "an empty training split": ({"train_jsonl": ""}, {}, "train.jsonl: is empty"),
}


@pytest.mark.parametrize(("files", "changes", "says"), REFUSALS.values(), ids=REFUSALS)
def test_unusable_data_are_refused_by_name(load, tmp_path: Path, files, changes: dict[str, Any], says: str) -> None:
    usual = {"train_jsonl": jsonl(reviews(30))}
    if not any(name.startswith("validation") for name in files):
        usual["validation_jsonl"] = jsonl(reviews(9, 100))
    folder = write(tmp_path / "d", **(usual | files))

    with pytest.raises(DataError) as refused:
        load(folder, **changes)

    message = str(refused.value)
    assert says in message
    assert ("; " in message, len(message.splitlines()), refused.value.exit_code) == (True, 1, 2)


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("/no/such/folder", "no such folder"),
        ("./here", "no such folder"),
        ("a/b/c", "no such folder"),
        (".", "no train, validation or test file"),
        ("train.txt", "is no table that can be read"),
    ],
)
def test_data_that_do_not_exist_are_refused(tmp_path: Path, monkeypatch, where: str, says: str) -> None:
    monkeypatch.chdir(tmp_path)
    if where == "train.txt":
        Path(where).write_text(jsonl(reviews(3)), encoding="utf-8")

    with pytest.raises(DataError, match=says):
        inspect_data(want(where), HEADS[HEAD])


def test_the_demo_has_no_other_splits() -> None:
    with pytest.raises(DataError, match="no split 'dev-matched'; there are train, validation, test"):
        inspect_data(want("demo", certify_on="dev-matched"), HEADS[HEAD])


@pytest.mark.parametrize(("head", "column"), [(HEAD, "label"), ("feature-extraction", "score")])
def test_a_split_whose_scores_are_all_hidden_cannot_judge(load, tmp_path: Path, head: str, column: str) -> None:
    rows = [{"sentence1": f"a {i}", "sentence2": "b", column: -1.0} for i in range(5)]
    folder = write(tmp_path / "d", train_jsonl=jsonl(rows), test_jsonl=jsonl(rows[:3]))

    with pytest.raises(DataError, match="split 'test' has -1 for every label"):
        load(folder, head, {"id2label": {"0": "LABEL_0"}})


@pytest.mark.parametrize("seed", range(8))
def test_no_content_is_in_two_splits_even_under_another_label(load, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    words = [f"text {i}" for i in range(rng.randint(6, 40))]
    rows = [{"text": rng.choice(words), "label": rng.randint(0, 1)} for _ in range(120)]
    sizes = {"examples": rng.randint(1, 4), "calibration_examples": rng.randint(1, 9)}
    folder = write(tmp_path / "d", train_jsonl=jsonl(rows[:90]), validation_jsonl=jsonl(rows[90:]))

    splits = load(folder, seed=seed, **sizes)

    calibration, tuning, certification = (
        [row["text"] for row in part] for part in (splits.calibration, splits.tuning, splits.certification)
    )
    assert calibration
    assert certification
    assert len({*calibration, *tuning}) == len(calibration) + len(tuning)
    assert not {*calibration, *tuning} & set(certification)


def test_training_texts_that_certification_has_are_left_out(load, tmp_path: Path) -> None:
    validation = reviews(5)
    relabelled = [{**row, "label": 1 - row["label"]} for row in validation]
    folder = write(
        tmp_path / "d", train_jsonl=jsonl([*relabelled, *reviews(3, 50)]), validation_jsonl=jsonl(validation)
    )

    splits = load(folder)

    drawn = {row["text"] for row in (*splits.calibration, *splits.tuning)}
    assert drawn == {"review 50", "review 51", "review 52"}


def test_data_without_anything_left_to_calibrate_on_are_refused(load, tmp_path: Path) -> None:
    folder = write(tmp_path / "d", train_jsonl=jsonl(reviews(5)), validation_jsonl=jsonl(reviews(5)))

    with pytest.raises(DataError, match="split 'train' has nothing that certification has not"):
        load(folder)


def test_one_split_alone_is_cut(load, tmp_path: Path) -> None:
    splits = load(write(tmp_path / "d", train_jsonl=jsonl(reviews(30))), examples=100, calibration_examples=100)

    parts = [{row["text"] for row in part} for part in (splits.certification, splits.calibration, splits.tuning)]
    assert sum(len(part) for part in parts) == len(set.union(*parts)) == 30
    assert 9 < len(parts[0]) < 21


def test_one_example_alone_cannot_be_cut(load, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"split 'train' (is empty or has one example|has nothing that certification)"):
        load(write(tmp_path / "d", train_jsonl=jsonl(reviews(1))))


def test_calibration_comes_first_where_there_is_little(load, tmp_path: Path) -> None:
    folder = write(tmp_path / "d", train_jsonl=jsonl(reviews(1)), validation_jsonl=jsonl(reviews(5, 100)))

    splits = load(folder, calibration_examples=1, tuning_examples=500)

    assert (len(splits.calibration), len(splits.tuning)) == (1, 0)


def test_the_seed_alone_decides_what_is_drawn(load, tmp_path: Path) -> None:
    folder = write(tmp_path / "d", train_jsonl=jsonl(reviews(60)), validation_jsonl=jsonl(reviews(60, 100)))

    first, again, other = load(folder), load(folder), load(folder, seed=1)

    assert first == again
    for name in first.records:
        assert first.records[name].digest != other.records[name].digest


def test_digests_change_with_a_text_and_with_a_label(load, tmp_path: Path) -> None:
    usual = {"train_jsonl": jsonl(reviews(30))}
    rows = reviews(5, 100)
    texts = [{**rows[0], "text": "changed"}, *rows[1:]]
    labels = [{**rows[0], "label": 1}, *rows[1:]]

    digests = [
        load(write(tmp_path / str(number), **usual, validation_jsonl=jsonl(variant))).records["certification"].digest
        for number, variant in enumerate((rows, rows, texts, labels))
    ]

    assert digests[0] == digests[1]
    assert len({*digests}) == 3


def test_a_file_that_is_written_anew_is_read_anew(load, tmp_path: Path) -> None:
    files = {"train_jsonl": jsonl(reviews(30)), "validation_jsonl": jsonl(reviews(5, 100))}
    before = load(write(tmp_path / "d", **files))

    after = load(write(tmp_path / "d", **files | {"validation_jsonl": jsonl(reviews(6, 200))}))

    assert (before.certification[0]["text"], after.certification[0]["text"]) == ("review 100", "review 200")


def test_the_order_of_files_in_the_folder_changes_nothing(load, tmp_path: Path) -> None:
    files = {
        "train_jsonl": jsonl(reviews(30)),
        "dev_jsonl": jsonl(reviews(5, 100)),
        "test_jsonl": jsonl(reviews(5, 200)),
    }
    forwards = write(tmp_path / "a", **files)
    backwards = write(tmp_path / "b", **dict(reversed(files.items())))

    assert load(forwards).records == load(backwards).records
