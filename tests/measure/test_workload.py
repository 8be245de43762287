from __future__ import annotations

from dataclasses import replace

import numpy as np

from optimize.interfaces import Feature
from optimize.measure.workload import Workload, feeds_for, why_not


def feature(tokens: int, *leading: int) -> Feature:
    ids = np.zeros((*leading, tokens), dtype=np.int64)
    return Feature({"input_ids": ids, "attention_mask": np.ones_like(ids)}, example=0)


WORKLOAD = Workload(features=(), vocab_size=30522, max_positions=512, pad_id=0, seed=7)


def test_a_shape_is_one_batch_of_random_ordinary_tokens_without_padding() -> None:
    (feed,) = feeds_for("8x128", WORKLOAD)
    assert feed["input_ids"].shape == (8, 128)
    assert feed["input_ids"].min() >= 1000
    assert feed["input_ids"].max() < 30522
    assert feed["attention_mask"].all()


def test_feeds_repeat_with_the_seed() -> None:
    first, again = (feeds_for("1x16", WORKLOAD)[0]["input_ids"] for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, feeds_for("1x16", replace(WORKLOAD, seed=8))[0]["input_ids"])


def test_a_small_vocabulary_is_never_left() -> None:
    (feed,) = feeds_for("1x64", replace(WORKLOAD, vocab_size=100))
    assert feed["input_ids"].max() < 100


def test_multiple_choice_takes_its_choices_from_the_data_or_else_from_the_workload() -> None:
    assert feeds_for("2x16", replace(WORKLOAD, features=(feature(5, 3),)))[0]["input_ids"].shape == (2, 3, 16)
    assert feeds_for("2x16", replace(WORKLOAD, choices=4))[0]["input_ids"].shape == (2, 4, 16)


def test_data_is_up_to_32_single_features_from_short_to_long() -> None:
    feeds = feeds_for("data", replace(WORKLOAD, features=tuple(feature(tokens) for tokens in range(320, 0, -1))))
    lengths = [feed["input_ids"].shape[1] for feed in feeds]
    assert len(feeds) == 32
    assert feeds[0]["input_ids"].ndim == 2
    assert lengths == sorted(lengths)
    assert (lengths[0], lengths[-1]) == (6, 316)


def test_batches_of_data_mix_lengths_and_are_padded_to_the_longest() -> None:
    workload = replace(WORKLOAD, features=tuple(feature(tokens) for tokens in range(1, 65)))
    feeds = feeds_for("8xdata", workload)
    assert [len(feed["input_ids"]) for feed in feeds] == [8] * 4
    lengths = [feed["attention_mask"].sum(axis=1) for feed in feeds]
    assert all(
        np.ptp(each) > 8 and each.max() == feed["input_ids"].shape[1] for each, feed in zip(lengths, feeds, strict=True)
    )
    assert len({int(tokens) for each in lengths for tokens in each}) == 32
    assert np.array_equal(feeds_for("8xdata", workload)[0]["input_ids"], feeds[0]["input_ids"])
    assert why_not("64xdata", workload) is None
    assert why_not("65xdata", workload) == "only 64 texts to take lengths from"


def test_a_batch_of_data_has_texts_with_as_many_choices() -> None:
    workload = replace(WORKLOAD, features=(feature(5, 3), feature(6, 2), feature(7, 3)))
    assert [feed["input_ids"].shape for feed in feeds_for("2xdata", workload)] == [(2, 3, 7)]


def test_a_shape_beyond_the_model_or_without_data_is_not_measured() -> None:
    assert why_not("1x1024", WORKLOAD) == "longer than the model's 512 positions"
    assert why_not("1x512", WORKLOAD) is None
    assert why_not("data", WORKLOAD) == "no data to take lengths from"
