"""Rows of data that cannot be used are named by their places, and whatever else a row holds is refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from hostile.cases import HEAD, PROGRESS, assert_refused
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from optimize.data.separated import dialect_of
from optimize.data.splits import Splits, Wanted, load_splits
from optimize.errors import DataError
from optimize.heads import HEADS
from optimize.interfaces import Row, Text

CONFIG = {"id2label": {"0": "negative", "1": "positive"}}
TAGS = {"id2label": {"0": "O", "1": "B-PER", "2": "I-PER"}}
NUMBER = {"id2label": {"0": "score"}}
GOOD: dict[str, Row] = {
    "feature-extraction": {"text1": "a cat", "text2": "a dog", "score": 1.5},
    "fill-mask": {"text": "a cat sat"},
    "text-classification": {"text": "a cat", "label": 1},
    "multiple-choice": {"context": "a cat", "question": "what", "choices": ["sat", "ran"], "label": 0},
    "token-classification": {"tokens": ["a", "cat"], "tags": [0, 1]},
    "question-answering": {"context": "a cat sat", "question": "who", "answers": {"text": ["a cat"]}},
}
ROLE_OF = {"text1": "text", "text2": "text_pair"}
HALF = "\ud83d"


def config_of(head: str) -> dict[str, Any]:
    return TAGS if head == "token-classification" else CONFIG


def in_roles(row: Row) -> Row:
    """A row as a head is given it."""
    return {ROLE_OF.get(name, name): value for name, value in row.items()}


def numbered(head: str, number: int) -> Row:
    """A good row that is like no other."""
    row = dict(GOOD[head])
    if head == HEAD:
        row["label"] = number % 2
    name = next(iter(row))
    row[name] = [row[name][0], f"cat{number}"] if isinstance(row[name], list) else f"{row[name]} {number}"
    return row


def lines(rows: list[Row]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def write(folder: Path, split: str, rows: list[Row]) -> Path:
    path = folder / f"{split}.jsonl"
    path.write_text(lines(rows), encoding="utf-8")
    return path


def load(folder: Path, head: str = HEAD, *, tuning_examples: int = 4) -> Splits:
    wanted = Wanted(str(folder), None, {}, None, 99, 4, tuning_examples, seed=0)
    return load_splits(wanted, HEADS[head], config_of(head))


# What a column of the file may hold beside good values: `datasets` reads no column of values of two kinds, save null.
IN_FILES: dict[str, tuple[str, Row, str]] = {
    "null text": ("text-classification", {"text": None}, "has no text; give a string or remove the row"),
    "no label": ("text-classification", {"label": None}, "has no label; name a labelled split with --certify-on"),
    "a label out of range": ("text-classification", {"label": 2}, "label 2 is not in the checkpoint"),
    "a hidden label": ("text-classification", {"label": -1}, "has no label"),
    "null text to mask": ("fill-mask", {"text": None}, "has no text"),
    "null pair": ("feature-extraction", {"text2": None}, "has no text_pair"),
    "null score": ("feature-extraction", {"score": None}, "has None as score; give a finite number"),
    "null context": ("multiple-choice", {"context": None}, "has no context"),
    "null choices": ("multiple-choice", {"choices": None}, "has 0 choices, or some that are not text"),
    "one choice": ("multiple-choice", {"choices": ["a"]}, "has 1 choices"),
    "no choices": ("multiple-choice", {"choices": []}, "has 0 choices"),
    "null among choices": ("multiple-choice", {"choices": ["a", None]}, "has 2 choices, or some that are not text"),
    "a choice too far": ("multiple-choice", {"label": 2}, "has 2 as label; give a class id from 0 to 1"),
    "null tokens": ("token-classification", {"tokens": None}, "has no list of tokens"),
    "tokens of nulls": ("token-classification", {"tokens": [None, None]}, "has None among its tokens; give text"),
    "too many tags": ("token-classification", {"tags": [0, 1, 0]}, "has 2 tokens and 3 tags; give a tag for each"),
    "too few tags": ("token-classification", {"tags": []}, "has 2 tokens and 0 tags"),
    "no tokens": ("token-classification", {"tokens": []}, "has 0 tokens and 2 tags"),
    "tags of nulls": ("token-classification", {"tags": [None, None]}, "has no label"),
    "null tags": ("token-classification", {"tags": None}, "has no label"),
    "a tag out of range": ("token-classification", {"tags": [0, 3]}, "label 3 is not in the checkpoint"),
    "null question": ("question-answering", {"question": None}, "has no question"),
    "null answers": ("question-answering", {"answers": None}, "has no list of answer texts"),
    "no answers": ("question-answering", {"answers": {"text": [""]}}, "has an answer without text"),
    "an answer elsewhere": ("question-answering", {"answers": {"text": ["dog"]}}, "'dog', which is not in its context"),
    "null among answers": ("question-answering", {"answers": {"text": [None]}}, "has an answer without text"),
}
ELSEWHERE: dict[str, tuple[str, Row, str]] = {
    "number for text": ("text-classification", {"text": 5}, "has an int as text; give a string or remove the row"),
    "fraction for text": ("text-classification", {"text": 0.5}, "has a float as text"),
    "flag for text": ("text-classification", {"text": True}, "has a bool as text"),
    "list for text": ("text-classification", {"text": ["a"]}, "has a list as text"),
    "object for text": ("text-classification", {"text": {"a": "b"}}, "has a dict as text"),
    "half a character": ("text-classification", {"text": f"a {HALF}"}, "has half a character as text ('\\ud83d')"),
    "words for a score": ("feature-extraction", {"score": "much"}, "has 'much' as score"),
    "an endless score": ("feature-extraction", {"score": float("inf")}, "has inf as score"),
    "a score of many digits": ("feature-extraction", {"score": 10**400}, "as score; give a finite number"),
    "number for a question": ("multiple-choice", {"question": 3}, "has an int as question"),
    "number for a start": ("multiple-choice", {"start": 3}, "has an int as start"),
    "text for choices": ("multiple-choice", {"choices": "abcd"}, "has a str as choices; give a list of at least two"),
    "text for named choices": ("multiple-choice", {"choices": {"text": "abcd"}}, "has a str as choices"),
    "number for choices": ("multiple-choice", {"choices": 4}, "has an int as choices"),
    "a letter that is none": ("multiple-choice", {"label": "ß"}, "has 'ß' as label"),
    "a name too many": (
        "multiple-choice",
        {"choices": {"text": ["a", "b"], "label": ["1", "2", "3"]}, "label": "3"},
        "has 2 as label; give a class id from 0 to 1",
    ),
    "text for tokens": ("token-classification", {"tokens": "ab"}, "has no list of tokens"),
    "number for tokens": ("token-classification", {"tokens": 5}, "has no list of tokens"),
    "number among tokens": ("token-classification", {"tokens": ["a", 5]}, "has 5 among its tokens"),
    "half a character for a token": (
        "token-classification",
        {"tokens": ["a", HALF]},
        "has half a character as a token",
    ),
    "number for answers": ("question-answering", {"answers": 5}, "has no list of answer texts"),
    "numbers for answers": ("question-answering", {"answers": [5]}, "has an answer without text"),
}


@pytest.mark.parametrize(("head", "change", "says"), IN_FILES.values(), ids=IN_FILES)
def test_a_row_that_cannot_be_used_is_named_by_its_line(head: str, change: Row, says: str, tmp_path: Path) -> None:
    write(tmp_path, "train", [numbered(head, number) for number in range(20, 60)])
    rows = [numbered(head, number) for number in range(7)]
    path = write(tmp_path, "validation", [*rows[:5], rows[5] | change, rows[6]])

    with pytest.raises(DataError) as refused:
        load(tmp_path, head)

    message = str(refused.value)
    assert message.startswith(f"{path}, line 6: ")
    assert says in message
    assert "\n" not in message


@pytest.mark.parametrize(("head", "change", "says"), ELSEWHERE.values(), ids=ELSEWHERE)
def test_what_a_head_cannot_read_is_said(head: str, change: Row, says: str) -> None:
    found = HEADS[head].faults([in_roles(GOOD[head]), in_roles(GOOD[head] | change)], config_of(head))

    assert list(found) == [1]
    assert says in found[1]
    assert "\n" not in found[1]


def test_names_of_choices_that_are_numbers_come_before_places(tmp_path: Path) -> None:
    choices = {"text": ["sat", "ran", "lay"], "label": ["1", "2", "3"]}
    rows = [numbered("multiple-choice", number) | {"choices": choices, "label": 2} for number in range(3)]

    assert HEADS["multiple-choice"].faults(rows, CONFIG) == {}
    write(tmp_path, "validation", rows)
    write(tmp_path, "train", [numbered("multiple-choice", number) for number in range(20, 60)])
    assert all(row["label"] == 2 for row in load(tmp_path, "multiple-choice").certification)


def write_jsonl(folder: Path, rows: list[Row]) -> Path:
    path = folder / "validation.jsonl"
    path.write_text("\n\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def write_parquet(folder: Path, rows: list[Row]) -> Path:
    path = folder / "validation.parquet"
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


def write_separated(suffix: str, delimiter: str) -> Callable[[Path, list[Row]], Path]:
    def write(folder: Path, rows: list[Row]) -> Path:
        path = folder / f"validation{suffix}"
        body = "".join(f"{row['text']}{delimiter}{row['label']}\n\n" for row in rows)
        path.write_text(f"text{delimiter}label\n{body}", encoding="utf-8")
        return path

    return write


WRITERS = {
    "jsonl": (write_jsonl, ["line 3", "line 7"]),
    "csv": (write_separated(".csv", ","), ["line 4", "line 8"]),
    "tsv": (write_separated(".tsv", "\t"), ["line 4", "line 8"]),
    "parquet": (write_parquet, ["row 2", "row 4"]),
}
OTHERS = [{"text": f"dog {number}", "label": 0} for number in range(20)]


@pytest.mark.parametrize(("writer", "named"), WRITERS.values(), ids=WRITERS)
def test_all_bad_rows_are_counted_and_the_first_named(writer, named: list[str], tmp_path: Path) -> None:
    rows = [{"text": f"cat {number}", "label": 7 if number in (1, 3, 6, 9, 10) else 1} for number in range(12)]
    path = writer(tmp_path, rows)
    write(tmp_path, "train", OTHERS)

    with pytest.raises(DataError) as refused:
        load(tmp_path)

    message = str(refused.value)
    assert message.startswith(f"{path}: 5 of 12 rows cannot be used: {named[0]}: label 7 is not in ")
    assert f" | {named[1]}: label 7" in message
    assert message.endswith(" | and 2 more")


def test_rows_after_a_text_of_several_lines_are_named_by_the_line_they_begin_on(tmp_path: Path) -> None:
    path = tmp_path / "validation.csv"
    path.write_text('text,label\n"a\nb\nc",1\n"d\ne",7\nf,0\n', encoding="utf-8")
    write(tmp_path, "train", OTHERS)

    with pytest.raises(DataError, match=r"validation\.csv, line 5: label 7 is not in the checkpoint"):
        load(tmp_path)


def drawn(folder: Path) -> set[str]:
    splits = load(folder)
    return {row["text"] for row in (*splits.calibration, *splits.tuning)}


def test_a_bad_row_that_nothing_uses_is_no_fault(tmp_path: Path) -> None:
    rows: list[Row] = [{"text": f"cat {number}", "label": number % 2} for number in range(200)]
    write(tmp_path, "validation", OTHERS)
    write(tmp_path, "train", rows)
    used = drawn(tmp_path)
    unused = [row for row in rows if row["text"] not in used]
    for row in unused:
        row["text"], row["label"] = None, 9
    write(tmp_path, "train", rows)

    assert len(unused) == 192
    assert drawn(tmp_path) == used
    with pytest.raises(DataError, match=r"train\.jsonl: 192 of 200 rows cannot be used: line \d+: label 9"):
        load(tmp_path, tuning_examples=40)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_what_is_only_built_has_its_rows_read_before(optimize, folders, tmp_path: Path, split: str) -> None:
    def spoil(folder: Path) -> None:
        rows = [json.loads(line) for line in (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]
        write(folder, split, [row | {"text": None} for row in rows[:5]] + rows[5:])

    asked = optimize("run", "--build-only", "--certify-on", split, *folders(data=spoil))

    assert_refused(asked, 2, f"{split}.jsonl: 5 of ", tmp_path, progress=PROGRESS)
    assert "line 1: has no text; give a string or remove the row | line 2: " in asked.err


TABLES: dict[str, tuple[str, str, list[str] | None]] = {
    "plain": (".tsv", "a\t1\nb\t0\n", ["a", "b"]),
    "a lone quote": (".tsv", '"a\t1\nb\t0\nc\t1\n', ['"a', "b", "c"]),
    "a lone quote at the end": (".tsv", 'a\t1\nb\t0\n"c\t1\n', ["a", "b", '"c']),
    "two lone quotes at the front": (".tsv", '"a\t1\nb\t0\n"c\t1\n', ['"a', "b", '"c']),
    "a quote that another text closes": (".tsv", '"a\t1\nb\t0\nc"\t1\n', ['"a', "b", 'c"']),
    "quotes that are all there is": (".tsv", '"\t1\nb\t0\n"\t1\n', ['"', "b", '"']),
    "quotes inside": (".tsv", 'a "b" c\t1\n"\t0\n', ['a "b" c', '"']),
    "quoted as programs do": (".tsv", '"a ""b"" c"\t1\nd\t0\n', ['a "b" c', "d"]),
    "a quoted tab": (".tsv", '"a\tb"\t1\nd\t0\n', ["a\tb", "d"]),
    "several lines in quotes": (".tsv", '"a\nb"\t1\nd\t0\n', ["a\nb", "d"]),
    "empty lines": (".tsv", "a\t1\n\nb\t0\n\n", ["a", "b"]),
    "Windows' lines": (".tsv", "a\t1\r\nb\t0\r\n", ["a", "b"]),
    "no end of the last line": (".tsv", "a\t1\nb\t0", ["a", "b"]),
    "a text longer than csv's limit": (".tsv", "a\t1\n" + "b" * 140_000 + "\t0\n", ["a", "b" * 140_000]),
    "csv": (".csv", 'a,1\n"b, c",0\n', ["a", "b, c"]),
    "csv with several lines": (".csv", '"a\nb",1\nd,0\n', ["a\nb", "d"]),
    "csv with a lone quote": (".csv", '"a,1\nb,0\nc,1\n', ['"a', "b", "c"]),
    "csv with two at the front": (".csv", '"a,1\nb,0\n"c,1\n', ['"a', "b", '"c']),
    "csv that can be either": (".csv", '"a,1\nb,0\nc",1\n', None),
    "csv that is neither": (".csv", '"a,1\nb, d,0\n"c,1\n', None),
}


@pytest.mark.parametrize(("suffix", "body", "texts"), TABLES.values(), ids=TABLES)
def test_no_row_of_a_table_vanishes_between_quotes(suffix: str, body: str, texts, tmp_path: Path) -> None:
    path = tmp_path / f"validation{suffix}"
    path.write_bytes((("text\tlabel\n" if suffix == ".tsv" else "text,label\n") + body).encode())
    write(tmp_path, "train", OTHERS)

    if texts is None:
        with pytest.raises(DataError, match=rf"validation\{suffix}.*quote.*write it as jsonl"):
            load(tmp_path)
        return
    assert [row["text"] for row in load(tmp_path).certification] == texts
    assert dialect_of(path).rows == len(texts) + 1


def test_lines_that_quotes_join_are_spoken_of(tmp_path: Path) -> None:
    path = tmp_path / "validation.csv"
    path.write_text('text,label\n"a\nb",1\nd,0\n', encoding="utf-8")
    write(tmp_path, "train", OTHERS)

    assert load(tmp_path).notes == (f"{path}: 3 lines after the header are 2 rows: quotes join lines to one text",)


# Whatever JSON can say, in whatever role a head knows.
ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.just(10**400)
    | st.floats()
    | st.text(max_size=8)
    | st.just(HALF),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["text", "label", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)
ROLES = sorted({role.rstrip("?") for head in HEADS.values() for layout in head.dataset for role in layout})
CONFIGS = (CONFIG, TAGS, NUMBER, {}, CONFIG | {"problem_type": "multi_label_classification"})


def rows_near(head: str) -> st.SearchStrategy[list[Row]]:
    """Good rows of a head in which some values are anything."""
    changes = st.dictionaries(st.sampled_from(ROLES), ANY, max_size=2)
    return st.lists(changes.map(lambda change: in_roles(GOOD[head]) | change), min_size=1, max_size=3)


@pytest.fixture(scope="module")
def tokenizer(checkpoint) -> Any:
    import transformers

    return transformers.AutoTokenizer.from_pretrained(checkpoint(HEAD))


@pytest.mark.parametrize("head", HEADS)
@settings(max_examples=150, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_whatever_a_row_holds_is_encoded_or_refused(head: str, data: st.DataObject, tokenizer) -> None:
    rows, config = data.draw(rows_near(head)), data.draw(st.sampled_from(CONFIGS))

    encoded, refused = None, ""
    try:
        encoded = HEADS[head].encode(rows, Text(tokenizer, config, 48))
    except DataError as error:
        refused = str(error)

    if encoded is None:
        assert "; " in refused
        assert len(refused.splitlines()) == 1
        return
    assert all(0 < feature.tokens <= 48 for feature in encoded.features)
    values = [HEADS[head].score(encoded, answers).value for answers in HEADS[head].constants(encoded)]
    assert all(-1 <= value <= 1 for value in values)
