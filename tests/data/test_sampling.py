"""Data sets of the Hub that are too large to be read whole: what is read of them, and that it is the same each time."""

from __future__ import annotations

import io
import json
import random
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from hub_server import Hub, point_to

from optimize.data import hub as hub_module
from optimize.data import sampling
from optimize.data.sampling import read_block
from optimize.data.splits import inspect_data, load_splits
from optimize.data.wanted import Splits, Wanted
from optimize.errors import DataError, UnavailableError
from optimize.heads import HEADS

HEAD = HEADS["text-classification"]
NAME = "tester/large"
SENTIMENT = {"id2label": {"0": "negative", "1": "positive"}}
CARD = b"""---
dataset_info:
  features:
  - {name: text, dtype: string}
  - {name: label, dtype: {class_label: {names: {'0': Positive, '1': Negative}}}}
  - {name: notes, dtype: string}
---
"""
SHARDS, ROWS, GROUP = 12, 500, 20


def rows_of(shard: int, split: str = "train") -> list[dict[str, Any]]:
    """Sorted by label, as many data sets are, with a column that nobody needs and that does not pack."""
    start, label = shard * ROWS, int(2 * shard >= SHARDS)
    made = []
    for number in range(start, start + ROWS):
        notes = random.Random(number).randbytes(200).hex()
        made.append({"text": f"{split} review {number}", "label": label, "notes": notes})
    return made


def parquet(rows: list[dict[str, Any]]) -> bytes:
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), stream, row_group_size=GROUP)
    return stream.getvalue()


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.fixture(params=["parquet", pytest.param("jsonl", marks=pytest.mark.slow)])
def large(request, here: Hub, monkeypatch) -> Hub:
    """A Hub with a data set of many shards, in a process that takes it for large."""
    form = parquet if request.param == "parquet" else lines
    files = {f"train-{shard:05}-of-{SHARDS:05}.{request.param}": form(rows_of(shard)) for shard in range(SHARDS)}
    files[f"validation-00000-of-00001.{request.param}"] = form(rows_of(5, "dev") + rows_of(6, "dev"))
    here.dataset(NAME).commit({"README.md": CARD, **files})
    monkeypatch.setattr(hub_module, "MOST_BYTES", 2**20)
    monkeypatch.setattr(sampling, "PARTS", 16)
    monkeypatch.setattr(sampling, "BLOCK_BYTES", 2**13)
    return here


def want(**changes: Any) -> Wanted:
    few: dict[str, Any] = {"config": None, "columns": {}, "certify_on": None, "examples": 100}
    few |= {"calibration_examples": 30, "tuning_examples": 30, "seed": 0}
    return Wanted(NAME, **(few | changes))


def load(**changes: Any) -> Splits:
    commit = inspect_data(want(**changes), HEAD)
    return load_splits(want(revision=commit, **changes), HEAD, SENTIMENT)


def size_of(hub: Hub) -> int:
    (commit,) = hub.dataset(NAME).commits.values()
    return sum(map(len, commit.values()))


def test_of_a_large_data_set_little_is_downloaded_and_it_is_said(large: Hub) -> None:
    splits = load()

    assert large.sent < size_of(large) / 3
    counts = {name: record.count for name, record in splits.records.items()}
    assert counts == {"calibration": 30, "tuning": 30, "certification": 100}
    (note,) = splits.records["tuning"].notes
    assert re.match(r"train: a sample, drawn with seed 0 from 1\d of \d{3} (row groups|blocks of lines) in ", note)
    assert note.endswith(" in 8 of 12 files")
    assert splits.records["certification"].notes[0].startswith("validation: a sample")
    assert set(splits.notes) == {note, *splits.records["certification"].notes}


def test_a_sample_of_a_sorted_data_set_has_all_of_its_labels(large: Hub) -> None:
    splits = load()

    # The card numbers the classes the other way round.
    for part in (splits.certification, splits.calibration, splits.tuning):
        assert {row["label"] for row in part} == {0, 1}
    for row in splits.calibration:
        assert row["label"] == int(int(row["text"].split()[2]) < SHARDS * ROWS / 2)


def test_a_sample_is_the_same_each_time_and_another_with_another_seed(large: Hub) -> None:
    first, again, other = load(), load(), load(seed=1)

    assert first == again
    assert first.records["tuning"].digest != other.records["tuning"].digest


def test_a_sample_is_of_the_commit_that_was_planned(large: Hub) -> None:
    commit = inspect_data(want(), HEAD)
    first = load_splits(want(revision=commit), HEAD, SENTIMENT)
    large.dataset(NAME).commit({"data/train.parquet": parquet(rows_of(0))})

    assert load_splits(want(revision=commit), HEAD, SENTIMENT) == first


def test_offline_what_was_downloaded_whole_gives_the_same_sample(large: Hub, monkeypatch) -> None:
    import datasets
    import huggingface_hub

    online = load()
    huggingface_hub.snapshot_download(NAME, repo_type="dataset", revision=inspect_data(want(), HEAD))
    point_to("http://127.0.0.1:9", monkeypatch)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)

    assert load().records == online.records


def test_offline_a_data_set_that_was_sampled_only_is_refused(large: Hub, monkeypatch) -> None:
    import datasets
    import huggingface_hub

    load()
    point_to("http://127.0.0.1:9", monkeypatch)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)

    with pytest.raises(UnavailableError, match=rf"^{NAME}: .*Hub's cache"):
        load()


def test_a_small_data_set_is_read_whole(large: Hub, monkeypatch) -> None:
    monkeypatch.setattr(hub_module, "MOST_BYTES", 2**30)

    splits = load()

    assert large.sent == size_of(large)
    assert [record.notes for record in splits.records.values()] == [[], [], []]


def test_one_large_split_alone_is_sampled_and_cut(here: Hub, monkeypatch) -> None:
    here.dataset(NAME).commit({f"train-{n:05}-of-{SHARDS:05}.parquet": parquet(rows_of(n)) for n in range(SHARDS)})
    monkeypatch.setattr(hub_module, "MOST_BYTES", 2**20)

    splits = load()

    sample, half = splits.records["certification"].notes
    assert sample.startswith("train: a sample, drawn with seed 0 from 32 of 200 row groups in 8 of 12 files")
    assert half == "train: from the half that certifies, which the SHA-256 of each row's content decides"
    assert not {row["text"] for row in splits.certification} & {row["text"] for row in splits.tuning}


def test_what_is_no_parquet_is_refused_by_name(here: Hub, monkeypatch) -> None:
    here.dataset(NAME).commit({"train.parquet": b"PAR1" + bytes(2**12) + b"PAR1", "test.parquet": parquet(rows_of(0))})
    monkeypatch.setattr(hub_module, "MOST_BYTES", 2**10)

    with pytest.raises(DataError, match=rf"^{NAME}: cannot be loaded \(.*\); check --data and --data-config"):
        load()


def test_columns_that_a_large_data_set_lacks_are_said(large: Hub) -> None:
    with pytest.raises(DataError, match=rf"{NAME}.*no column 'body' for role 'text'; there are text, label, notes"):
        load(columns={"text": "body"})


@pytest.mark.parametrize("block", [1, 2, 3, 5, 8, 13, 64, 1000])
@pytest.mark.parametrize("ahead", [0, 1, 7, 100])
@pytest.mark.parametrize("end", [b"\n", b""])
def test_each_line_is_in_just_one_block(monkeypatch, block: int, ahead: int, end: bytes) -> None:
    content = b"\n".join([b"one", b"", b"three and more", b"4", b"", b"", b"seven", b"e" * 40]) + end
    monkeypatch.setattr(sampling, "BLOCK_BYTES", block)
    monkeypatch.setattr(sampling, "AHEAD_BYTES", ahead)

    found = [read_block(io.BytesIO(content), start, len(content)) for start in range(0, len(content), block)]

    assert b"".join(found) == content


def test_a_mark_at_the_beginning_is_no_part_of_a_line() -> None:
    assert read_block(io.BytesIO(b"\xef\xbb\xbf{}\n"), 0, 6) == b"{}\n"


def test_a_line_without_end_is_refused(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sampling, "BLOCK_BYTES", 2**10)
    monkeypatch.setattr(sampling, "LONGEST_LINE_BYTES", 2**12)

    with pytest.raises(DataError, match="a line is longer than 0 MiB"):
        read_block(io.BytesIO(b"a" * 2**14), 0, 2**14)
