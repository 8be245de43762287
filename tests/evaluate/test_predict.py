from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from doubles import LABELLING

from optimize.evaluate import predict
from optimize.interfaces import Encoded, Feature, Feed


def feature(*ids: int, choices: int = 0) -> Feature:
    row = np.array(ids, dtype=np.int64)
    array = np.tile(row, (choices, 1)) if choices else row
    return Feature({"input_ids": array, "attention_mask": np.ones_like(array)}, example=0)


def encoded(*features: Feature) -> Encoded:
    return Encoded(features, gold=(), truncated=0)


FIRST = replace(LABELLING, reads="first token")


def echo(feed: Feed) -> Feed:
    ids = feed["input_ids"].astype(np.float32)
    return {"logits": np.stack([ids, -ids], axis=-1)}


def first(feed: Feed) -> Feed:
    return {"logits": np.zeros((len(feed["input_ids"]), 3), np.float32)}


def test_collate_pads_on_the_right_with_the_pad_id_and_masks_it() -> None:
    feed = predict.collate([feature(5, 6, 7), feature(8)], pad_id=9)
    assert feed["input_ids"].tolist() == [[5, 6, 7], [8, 9, 9]]
    assert feed["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert feed["input_ids"].dtype == np.int64


def test_collate_pads_on_the_left_when_asked() -> None:
    feed = predict.collate([feature(5, 6)], pad_id=0, tokens=4, side="left")
    assert feed["input_ids"].tolist() == [[0, 0, 5, 6]]
    assert feed["attention_mask"].tolist() == [[0, 0, 1, 1]]


def test_collate_pads_the_tokens_of_choices_not_their_number() -> None:
    feed = predict.collate([feature(1, choices=2), feature(1, 2, 3, choices=2)], pad_id=0)
    assert feed["input_ids"].shape == (2, 2, 3)
    assert feed["attention_mask"][0].tolist() == [[1, 0, 0], [1, 0, 0]]


def test_collate_never_cuts_a_feature_to_fit() -> None:
    with pytest.raises(ValueError, match="cannot pad 3 tokens to 2"):
        predict.collate([feature(1, 2, 3)], pad_id=0, tokens=2)


def test_padding_is_cut_off_outputs_that_have_tokens() -> None:
    rows = dict(predict.predict(echo, LABELLING, [feature(1, 2, 3), feature(4)], pad_id=0))
    assert rows[0][:, 0].tolist() == [1, 2, 3]
    assert rows[1][:, 0].tolist() == [4]


def test_labels_are_not_taken_for_tokens_when_there_are_equally_many() -> None:
    rows = dict(predict.predict(first, FIRST, [feature(1, 2, 3), feature(4)], pad_id=0))
    assert [rows[index].shape for index in (0, 1)] == [(3,), (3,)]


def test_answers_come_in_the_order_of_the_features_not_of_their_lengths() -> None:
    features = [feature(*range(length, 2 * length)) for length in (9, 1, 5, 3, 7)]
    found = predict.run_split(echo, LABELLING, encoded(*features), pad_id=0)
    assert [answer[0] for answer in found.answers] == [9, 1, 5, 3, 7]
    assert [len(rows) for rows in found.rows] == [9, 1, 5, 3, 7]


def test_the_longest_prefix_of_rows_within_the_budget_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "KEEP_VALUES", 13)
    features = [feature(*range(length)) for length in (4, 2, 9, 1, 1)]
    found = predict.run_split(echo, LABELLING, encoded(*features), pad_id=0)
    assert [rows.shape for rows in found.rows] == [(4, 2), (2, 2)]
    assert len(found.answers) == 5


def test_batches_hold_eight_features_of_similar_length() -> None:
    features = [feature(*range(1 + length % 20)) for length in range(40)]
    batches = predict.plan_batches(features, tokens=10**6)
    lengths = [features[index].tokens for batch in batches for index in batch]
    assert [len(batch) for batch in batches] == [8] * 5
    assert lengths == sorted(lengths)


def test_a_batch_never_mixes_numbers_of_choices() -> None:
    features = [feature(1, choices=2), feature(1, choices=3), feature(1, choices=2)]
    assert predict.plan_batches(features, tokens=10**6) == [[0, 2], [1]]


def test_a_batch_never_puts_out_more_floats_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "MAX_OUTPUT_FLOATS", 100)
    sizes = []

    def wide(feed: Feed) -> Feed:
        output = np.zeros((*feed["input_ids"].shape, 10), np.float32)
        sizes.append(output.size)
        return {"logits": output}

    features = [feature(*range(length)) for length in (2, 2, 2, 3, 3, 3, 5, 5, 5, 10, 10)]
    assert len(list(predict.predict(wide, LABELLING, features, pad_id=0))) == 11
    assert max(sizes) == 100


def test_half_precision_outputs_are_read_as_float32() -> None:
    def half(feed: Feed) -> Feed:
        return {"logits": echo(feed)["logits"].astype(np.float16)}

    ((_, rows),) = predict.predict(half, LABELLING, [feature(1, 2)], pad_id=0)
    assert rows.dtype == np.float32


def test_importing_the_measures_imports_no_heavy_library() -> None:
    modules = "latency, rounds, size, workers, workload"
    heavy = ("torch", "onnxruntime", "onnx", "scipy", "transformers")
    evaluate = "from optimize.evaluate import accuracy, drift, predict, statistics"
    imports = f"import sys, optimize.gates; from optimize.measure import {modules}; {evaluate}"
    code = f"{imports}; print(*[name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
