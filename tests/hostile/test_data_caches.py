"""Data and corpora that change unnoticed, and what libraries keep of them: the rows used are those of the files."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hostile.cases import HEAD

from optimize import building
from optimize.config import Step, parse_step
from optimize.data import drawing, read
from optimize.data.splits import Splits, Wanted, load_splits
from optimize.errors import RequestError
from optimize.heads import HEADS

CONFIG = {"id2label": {"0": "negative", "1": "positive"}}
TEXTS = ("alpha", "omega")


def rows(word: str) -> list[dict[str, object]]:
    return [{"text": f"{word} {index:03}", "label": index % 2} for index in range(20)]


def jsonl(word: str) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows(word))


def listed(word: str) -> str:
    return json.dumps(rows(word))


def table(word: str, delimiter: str = ",") -> str:
    lines = (f"{row['text']}{delimiter}{row['label']}\n" for row in rows(word))
    return f"text{delimiter}label\n" + "".join(lines)


FORMATS = {"jsonl": jsonl, "json": listed, "csv": table, "tsv": lambda word: table(word, "\t")}


def write(path: Path, content: str) -> None:
    """Write so that neither size nor time tells the contents of this file apart."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(content, encoding="utf-8")
    os.utime(path, (0, 0))


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place of the test's own for temporary files."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return place


def load(folder: Path) -> Splits:
    wanted = Wanted(str(folder), None, {}, None, examples=8, calibration_examples=4, tuning_examples=4, seed=0)
    return load_splits(wanted, HEADS[HEAD], CONFIG)


def words(loaded: Splits) -> set[str]:
    return {row["text"].split()[0] for row in (*loaded.certification, *loaded.calibration, *loaded.tuning)}


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("split", ["train", "validation"])
def test_other_rows_of_the_same_size_and_time_are_read(tmp_path: Path, suffix: str, split: str) -> None:
    form = FORMATS[suffix]
    for each in ("train", "validation"):
        write(tmp_path / "data" / f"{each}.{suffix}", form(f"{each}-alpha"))
    first = load(tmp_path / "data")
    write(tmp_path / "data" / f"{split}.{suffix}", form(f"{split}-omega"))

    second = load(tmp_path / "data")

    kept = {"train-alpha", "validation-alpha"} - {f"{split}-alpha"}
    assert (words(first), words(second)) == ({"train-alpha", "validation-alpha"}, kept | {f"{split}-omega"})
    changed = {name for name in first.records if first.records[name].digest != second.records[name].digest}
    assert changed == ({"certification"} if split == "validation" else {"calibration", "tuning"})


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for split in ("train", "validation"):
        write(tmp_path / "data" / f"{split}.jsonl", jsonl(split))
    return tmp_path / "data"


def test_reading_files_leaves_nothing_that_could_be_believed(data: Path, tmp_path: Path, temporary: Path) -> None:
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface")) / "datasets"
    before = sorted(home.rglob("*"))

    load(data)

    assert list(temporary.iterdir()) == []
    assert sorted(home.rglob("*")) == before


def test_a_split_that_cannot_be_read_leaves_nothing_either(data: Path, tmp_path: Path, temporary: Path) -> None:
    with (data / "train.jsonl").open("a", encoding="utf-8") as stream:
        stream.write("{")

    with pytest.raises(RequestError, match=r"train.jsonl: cannot be read"):
        load(data)
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("moment", ["peek_columns", "silence_datasets"])
def test_a_file_that_changes_while_it_is_read_is_known_by_the_rows_used(
    data: Path, tmp_path: Path, monkeypatch, moment: str
) -> None:
    usual = getattr(read, moment)

    def swap(*arguments: object) -> object:
        write(data / "validation.jsonl", jsonl("overtaken!"))
        return usual(*arguments)

    expected = load(data)
    monkeypatch.setattr(read, moment, swap)
    swapped = load(data)

    assert "overtaken!" in words(swapped)
    assert swapped.records["certification"].digest == drawing.rows_digest(swapped.certification)
    assert swapped.records["certification"].digest != expected.records["certification"].digest


def step_of(corpus: Path) -> Step:
    return parse_step({"prune_vocabulary": {"corpus": str(corpus)}}, where="here")


def make_file(place: Path) -> Path:
    write(place / "corpus.txt", TEXTS[0])
    return place / "corpus.txt"


def make_folder(place: Path) -> Path:
    write(place / "corpus" / "one.txt", TEXTS[0])
    write(place / "corpus" / "two.jsonl", '{"text": "more"}\n')
    return place / "corpus"


CORPORA: dict[str, Callable[[Path], Path]] = {"a file": make_file, "a folder": make_folder}


def text_of(corpus: Path) -> Path:
    return corpus / "one.txt" if corpus.is_dir() else corpus


@pytest.mark.parametrize("make", CORPORA.values(), ids=CORPORA)
def test_a_corpus_that_changes_once_it_is_digested_is_refused(tmp_path: Path, make) -> None:
    corpus = make(tmp_path)
    known = building.params_of(step_of(corpus))
    write(text_of(corpus), TEXTS[1])

    with (
        pytest.raises(RequestError, match=r"\.txt: changed while it was read; run again"),
        building.private_params(step_of(corpus), known, tmp_path / "cache"),
    ):
        pytest.fail("it was let through")
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("make", CORPORA.values(), ids=CORPORA)
def test_a_corpus_that_changes_while_a_stage_reads_it_shapes_nothing(tmp_path: Path, make) -> None:
    corpus = make(tmp_path)
    known = building.params_of(step_of(corpus))

    with building.private_params(step_of(corpus), known, tmp_path / "cache") as params:
        write(text_of(corpus), TEXTS[1])
        assert text_of(params.corpus).read_text(encoding="utf-8") == TEXTS[0]
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("make", CORPORA.values(), ids=CORPORA)
def test_another_corpus_of_the_same_size_and_time_has_another_key(tmp_path: Path, make) -> None:
    corpus = make(tmp_path)
    first = building.params_of(step_of(corpus))
    write(text_of(corpus), TEXTS[1])

    assert building.params_of(step_of(corpus)) != first


@pytest.mark.parametrize("make", CORPORA.values(), ids=CORPORA)
def test_a_corpus_is_known_by_what_it_holds_wherever_it_lies(tmp_path: Path, make) -> None:
    corpus = make(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    first = building.params_of(step_of(corpus))

    moved = shutil.move(corpus, tmp_path / "elsewhere" / f"another{corpus.suffix}")

    assert building.params_of(step_of(Path(moved))) == first


def test_texts_that_become_rows_by_their_files_name_have_another_key(tmp_path: Path) -> None:
    write(tmp_path / "corpus.txt", '{"text": "alpha"}\n')
    first = building.params_of(step_of(tmp_path / "corpus.txt"))

    (tmp_path / "corpus.txt").rename(tmp_path / "corpus.jsonl")

    assert building.params_of(step_of(tmp_path / "corpus.jsonl")) != first
