"""Files as people have them: packed, in shards, from spreadsheets, in JSON of any shape, alone, saved by `datasets`."""

from __future__ import annotations

import gzip
import json
import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from optimize.data import forms
from optimize.data.splits import inspect_data, load_splits
from optimize.data.wanted import Splits, Wanted
from optimize.errors import DataError
from optimize.heads import HEADS

HEAD = HEADS["text-classification"]
SENTIMENT = {"id2label": {"0": "negative", "1": "positive"}}
Rows = list[dict[str, Any]]


def load(data: Path, config: str | None = None, **changes: Any) -> Splits:
    usual = {"examples": 99, "calibration_examples": 4, "tuning_examples": 4, "seed": 0}
    wanted = Wanted(str(data), config, {}, None, **(usual | changes))
    inspect_data(wanted, HEAD)
    return load_splits(wanted, HEAD, SENTIMENT)


def reviews(count: int, start: int = 0) -> Rows:
    return [{"text": f"review; {i}, “très” bon", "label": i % 2} for i in range(start, start + count)]


TRAIN, VALIDATION = reviews(12), reviews(7, 100)


def jsonl(rows: Rows) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def csv(rows: Rows, delimiter: str = ",", end: str = "\n") -> str:
    return "".join(
        delimiter.join((f'"{text}"', str(label))) + end
        for text, label in [("text", "label"), *((row["text"], row["label"]) for row in rows)]
    )


def parquet(rows: Rows) -> bytes:
    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue().to_pybytes()


def zstd(content: bytes) -> bytes:
    return pa.compress(content, codec="zstd", asbytes=True)


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def certified(splits: Splits) -> Rows:
    return list(splits.certification)


PACKED: dict[str, bytes] = {
    "validation.jsonl.gz": gzip.compress(jsonl(VALIDATION)),
    "validation.jsonl.zst": zstd(jsonl(VALIDATION)),
    "validation.json.gz": gzip.compress(json.dumps(VALIDATION).encode()),
    "validation.csv.gz": gzip.compress(csv(VALIDATION).encode()),
    "validation.tsv.zst": zstd(csv(VALIDATION, "\t").encode()),
    "dev.jsonl.gz": gzip.compress(jsonl(VALIDATION[:3])) + gzip.compress(jsonl(VALIDATION[3:])),
    "valid.jsonl.zst": zstd(jsonl(VALIDATION[:3])) + zstd(jsonl(VALIDATION[3:])),
}
SPREADSHEETS: dict[str, bytes] = {
    "UTF-8 with a mark": csv(VALIDATION).encode("utf-8-sig"),
    "semicolons and Windows' lines": csv(VALIDATION, ";", "\r\n").encode("utf-8-sig"),
    "UTF-16": csv(VALIDATION, ";", "\r\n").encode("utf-16"),
    "UTF-16 of the other kind": b"\xfe\xff" + csv(VALIDATION, "\t", "\r\n").encode("utf-16-be"),
    "tabs": csv(VALIDATION, "\t").encode(),
}
OBJECTS: dict[str, bytes] = {
    "a list": json.dumps(VALIDATION, indent=2).encode(),
    "under data": json.dumps({"data": VALIDATION}).encode(),
    "under data beside a version": json.dumps({"version": "1.0", "data": VALIDATION, "info": {}}).encode(),
    "lines": jsonl(VALIDATION),
    "lines with a mark": b"\xef\xbb\xbf" + jsonl(VALIDATION),
    "objects over several lines": "\n".join(json.dumps(row, indent=1) for row in VALIDATION).encode(),
}
SHARDS: dict[str, dict[str, bytes]] = {
    "of the Hub": {
        "validation-00001-of-00002.parquet": parquet(VALIDATION[4:]),
        "validation-00000-of-00002.parquet": parquet(VALIDATION[:4]),
    },
    "in data": {
        "data/validation-00000-of-00002.parquet": parquet(VALIDATION[:4]),
        "data/validation-00001-of-00002.parquet": parquet(VALIDATION[4:]),
    },
    "of older versions": {"data/validation-00000-of-00001-a09b74b3ef9c3b56.parquet": parquet(VALIDATION)},
    "converted": {"default/validation/0000.parquet": parquet(VALIDATION)},
    "several converted": {
        "default/validation/0000.parquet": parquet(VALIDATION[:1]),
        "default/validation/0001.parquet": parquet(VALIDATION[1:]),
    },
    "a folder a split": {"validation/rows.csv": csv(VALIDATION).encode()},
    "packed": {
        "validation-00000-of-00002.jsonl.gz": gzip.compress(jsonl(VALIDATION[:4])),
        "validation-00001-of-00002.jsonl.gz": gzip.compress(jsonl(VALIDATION[4:])),
    },
    "capitals": {"VALIDATION.CSV": csv(VALIDATION).encode()},
}
FOLDERS: dict[str, dict[str, bytes]] = (
    {name: {name: content} for name, content in PACKED.items()}
    | {name: {"validation.csv": content} for name, content in SPREADSHEETS.items()}
    | {name: {"validation.json": content} for name, content in OBJECTS.items()}
    | SHARDS
)


@pytest.mark.parametrize("files", FOLDERS.values(), ids=FOLDERS)
def test_whichever_way_rows_are_written_they_are_the_same(files: dict[str, bytes], tmp_path: Path) -> None:
    splits = load(write(tmp_path, {"train.jsonl": jsonl(TRAIN), **files}))

    assert certified(splits) == VALIDATION


def test_a_configuration_of_a_local_copy_of_a_hub_set_is_a_folder(tmp_path: Path) -> None:
    files = {"train-00000-of-00001.parquet": parquet(TRAIN), "validation-00000-of-00001.parquet": parquet(VALIDATION)}
    write(tmp_path / "sst2", files)
    write(tmp_path / "cola", {name: parquet(TRAIN) for name in files})

    assert certified(load(tmp_path, "sst2")) == VALIDATION
    with pytest.raises(DataError, match=r"has several data sets \(cola, sst2\); name one with --data-config"):
        load(tmp_path)
    for wrong in ("mnli", "../sst2", ".."):
        with pytest.raises(DataError, match=r"--data-config: .* has no folder"):
            load(tmp_path, wrong)


def utf16_without_mark(text: str) -> bytes:
    return text.encode("utf-16-le")


REFUSED: dict[str, tuple[dict[str, bytes], str]] = {
    "a shard too few": (
        {"validation-00000-of-00002.parquet": parquet(VALIDATION)},
        "shard 00001 of 00002 is missing beside validation-00000-of-00002.parquet; copy all of them",
    ),
    "the first of converted ones": (
        {"default/validation/0001.parquet": parquet(VALIDATION)},
        "shard 00000 of 00002 is missing beside 0001.parquet",
    ),
    "shards of two sets": (
        {
            "validation-00000-of-00002.parquet": parquet(VALIDATION),
            "validation-00001-of-00003.parquet": parquet(VALIDATION),
        },
        "are no shards of one split",
    ),
    "shards twice": (
        {
            "validation-00000-of-00001-aaaa.parquet": parquet(VALIDATION),
            "validation-00000-of-00001-bbbb.parquet": parquet(VALIDATION),
        },
        "two shards of 'validation' have the same number",
    ),
    "files that are no shards": (
        {"validation/a.csv": b"text,label\n", "validation/b.csv": b"text,label\n"},
        "a.csv and b.csv are no shards of one split",
    ),
    "two places": (
        {"validation.csv": b"text,label\na,1\n", "data/validation.csv": b"text,label\na,1\n"},
        "validation.csv and data/validation.csv are both 'validation'; keep one of them",
    ),
    "packed and not": (
        {"validation.csv": b"text,label\na,1\n", "validation.csv.gz": gzip.compress(b"text,label\na,1\n")},
        "are both 'validation'",
    ),
    "a pack cut short": (
        {"validation.jsonl.gz": gzip.compress(os.urandom(999))[:500]},
        "validation.jsonl.gz: cannot be unpacked (Compressed file ended",
    ),
    "another pack cut short": (
        {"validation.jsonl.zst": zstd(os.urandom(999))[:500]},
        "validation.jsonl.zst: cannot be unpacked (Truncated compressed stream); pack it again",
    ),
    "no pack at all": ({"validation.csv.gz": b"text,label\na,1\n"}, "cannot be unpacked (Not a gzipped file"),
    "Windows' letters": (
        {"validation.csv": "text,label\nfine,1\nit’s,0\n".encode("cp1252")},
        "validation.csv: cannot be read (line 3: byte 0x92 is not UTF-8, but would be '’' in Windows-1252); save it as",
    ),
    "half a letter at the end": (
        {"validation.jsonl": jsonl(VALIDATION) + b'{"text": "\xc3'},
        "line 8: byte 0xc3 is not UTF-8",
    ),
    "UTF-16 without a mark": (
        {"validation.csv": utf16_without_mark(csv([{"text": "a", "label": 1}]))},
        "validation.csv: cannot be read (it has zero bytes, as UTF-16 has); save it as UTF-8",
    ),
    "half of UTF-16": ({"validation.csv": csv(VALIDATION).encode("utf-16")[:-1]}, "validation.csv: cannot be read ("),
    "an object that is no list": ({"validation.json": b'{"data": {"text": "a"}}'}, "there are data; name them"),
    "nothing under data": ({"validation.json": b'{"data": []}'}, "validation.json: is empty"),
    "words under data": ({"validation.json": b'{"data": ["a", "b"]}'}, "its first row is not a JSON object"),
    "lists on lines": ({"validation.json": b"[1]\n[2]\n"}, "its first row is not a JSON object"),
    "no JSON after the first row": ({"validation.json": jsonl(VALIDATION) + b"{oh"}, "validation.json: cannot be read"),
    "shards that quote differently": (
        {
            "validation-00000-of-00002.csv": b"text;label\na;1\n",
            "validation-00001-of-00002.csv": b"text,label\nb,1\n",
        },
        "separate or quote values in different ways",
    ),
}


@pytest.mark.parametrize(("files", "says"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_read_is_said_in_a_line(files: dict[str, bytes], says: str, tmp_path: Path) -> None:
    write(tmp_path, {"train.jsonl": jsonl(TRAIN), **files})

    with pytest.raises(DataError) as refused:
        load(tmp_path)

    message = str(refused.value)
    assert says in message
    assert ("; " in message, len(message.splitlines())) == (True, 1)


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
def test_what_unpacks_without_end_is_refused(pack: Callable[[bytes], bytes], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(forms, "FREE_BYTES", 2**16)
    row = b'{"text": "%s", "label": 1}\n'
    suffix = "gz" if pack is gzip.compress else "zst"
    write(tmp_path, {"train.jsonl": jsonl(TRAIN), f"validation.jsonl.{suffix}": pack(row % (b"a" * 2**20))})

    with pytest.raises(DataError, match="unpacks to more than 100 times its size; unpack it yourself"):
        load(tmp_path)

    (tmp_path / f"validation.jsonl.{suffix}").write_bytes(pack(row % (b"a" * 2**15)))
    assert len(certified(load(tmp_path))) == 1


def test_rows_of_shards_are_named_by_their_file_and_line(tmp_path: Path) -> None:
    files = {
        "validation-00000-of-00002.jsonl": jsonl(VALIDATION),
        "validation-00001-of-00002.jsonl": b'{"text": "a", "label": 1}\n\n{"text": null, "label": 1}\n',
    }
    write(tmp_path, {"train.jsonl": jsonl(TRAIN), **files})

    with pytest.raises(DataError, match=r"validation-00001-of-00002\.jsonl, line 3: has no text"):
        load(tmp_path)


def test_a_file_alone_is_cut_in_two(tmp_path: Path) -> None:
    write(tmp_path, {"mine.csv": csv(reviews(40), ";").encode("utf-16")})

    splits = load(tmp_path / "mine.csv")

    assert {record.origin for record in splits.records.values()} == {"mine"}
    assert splits.records["certification"].notes == [
        "mine: from the half that certifies, which the SHA-256 of each row's content decides"
    ]
    assert splits.records["tuning"].notes == ["mine: from the other half"]


@pytest.mark.parametrize("name", ["mine.xlsx", "mine.txt", "mine.csv.bz2", "mine.parquet.gz", "mine"])
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"text,label\na,1\n")

    with pytest.raises(DataError, match=r"is no table that can be read \(jsonl, json, csv"):
        load(tmp_path / name)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A folder as `datasets` saves one, whose classes are numbered the other way round."""
    import datasets

    datasets.disable_progress_bars()
    kinds = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["Positive", "Negative"])}
    )
    tables = {
        split: datasets.Dataset.from_list([{**row, "label": 1 - row["label"]} for row in rows], features=kinds)
        for split, rows in {"train": TRAIN, "validation": VALIDATION}.items()
    }
    datasets.DatasetDict(tables).save_to_disk(tmp_path / "saved", num_shards={"train": 2, "validation": 3})
    return tmp_path / "saved"


def test_what_datasets_saved_keeps_its_features_and_nothing_is_written_to_it(saved: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in saved.rglob("*")}

    splits = load(saved)

    assert certified(splits) == VALIDATION
    assert {path: path.stat().st_mtime_ns for path in saved.rglob("*")} == before


def test_a_saved_data_set_without_splits_is_cut_in_two(saved: Path) -> None:
    splits = load(saved / "validation")

    assert {record.origin for record in splits.records.values()} == {"train"}
    assert len(certified(splits)) + len(splits.calibration) + len(splits.tuning) == len(VALIDATION)


def change(name: str, act: Callable[[Any], Any]) -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(act(json.loads(path.read_text(encoding="utf-8")))), encoding="utf-8")

    return changed


def leads(where: str) -> Callable[[Any], Any]:
    return lambda state: {**state, "_data_files": [{"filename": where}]}


STATE, TABLE = "validation/state.json", "validation/data-00001-of-00003.arrow"
SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "a file outside": (change(STATE, leads("../train/data-00000-of-00002.arrow")), "which does not lie in it"),
    "a file anywhere": (change(STATE, leads("/etc/passwd")), "which does not lie in it"),
    "a file of another kind": (change(STATE, leads("state.json")), "state.json: is not an Arrow file"),
    "a split outside": (change("dataset_dict.json", lambda _: {"splits": ["../x"]}), "which does not lie in it"),
    "the folder above": (change("dataset_dict.json", lambda _: {"splits": [".."]}), "which does not lie in it"),
    "no splits": (change("dataset_dict.json", lambda _: {}), "dataset_dict.json: names no splits"),
    "a list for a state": (change(STATE, lambda _: []), "state.json: is not a JSON object"),
    "no files": (change(STATE, lambda _: {"_data_files": []}), "state.json: names no data files"),
    "chosen rows": (
        change(STATE, lambda state: {**state, "_indices_data_files": [{"filename": "x.arrow"}]}),
        "is a choice of rows of another table; save it again",
    ),
    "a file too few": (lambda folder: (folder / TABLE).unlink(), "data-00001-of-00003.arrow: is not an Arrow file"),
    "a pickle": (lambda folder: (folder / TABLE).write_bytes(pickle.dumps({})), "cannot be read"),
    "a file cut short": (lambda folder: os.truncate(folder / TABLE, 300), "cannot be read"),
    "a pipe": (lambda folder: ((folder / TABLE).unlink(), os.mkfifo(folder / TABLE)), "is not an Arrow file"),
}


@pytest.mark.parametrize(("spoil", "says"), SPOILT.values(), ids=SPOILT)
def test_a_saved_folder_that_is_not_whole_is_refused(saved: Path, spoil: Callable[[Path], object], says: str) -> None:
    spoil(saved)

    with pytest.raises(DataError) as refused:
        load(saved)

    assert says in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
