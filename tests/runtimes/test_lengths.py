"""Batches of mixed length, run length by length: the same answers, and no more work than the lengths ask for."""

import numpy as np
import pytest

from optimize.errors import StageError
from optimize.heads import HEADS
from optimize.runtimes.lengths import at_lengths, fit, fitting, used_tokens

MASKS = ["full", "right-padded", "left-padded", "holed"]


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("head", sorted(HEADS))
def test_answers_do_not_depend_on_the_lengths(head, kind, context, apply, make_feed, difference):
    here = context(head)
    plain = apply(here, "export").open(here)
    parted = at_lengths(plain, (4, 12, 16, 32), here.head)
    feed = make_feed(here, kind)
    assert difference(here, plain, parted, feed) < 2e-5
    assert {name: array.shape for name, array in parted(feed).items()} == {
        name: array.shape for name, array in plain(feed).items()
    }


def test_each_row_runs_at_the_least_length_that_it_fits_in():
    seen = []

    def run(feed):
        seen.append(feed["input_ids"].shape)
        return {"logits": feed["input_ids"].sum(axis=1, keepdims=True).astype("float32")}

    mask = np.array([[1, 1, 0, 0, 0, 0], [0, 0, 0, 1, 1, 1], [1, 0, 0, 0, 0, 0], [1, 0, 0, 1, 0, 0]])
    feed = {"input_ids": mask * np.arange(1, 5)[:, None], "attention_mask": mask}
    found = at_lengths(run, (2, 4, 8), HEADS["text-classification"])(feed)
    assert seen == [(2, 2), (1, 4), (1, 8)]
    assert found["logits"].tolist() == [[2.0], [6.0], [3.0], [8.0]]


def test_tokens_are_counted_up_to_the_last_that_is_attended_to():
    assert used_tokens(np.array([[1, 1, 0], [0, 0, 1], [0, 0, 0]])).tolist() == [2, 3, 1]
    assert used_tokens(np.array([[[1, 0, 0], [1, 1, 0]]])).tolist() == [2]


def test_a_text_that_fits_nowhere_is_refused():
    assert [fitting(tokens, (4, 8)) for tokens in (1, 4, 5, 8)] == [4, 4, 8, 8]
    with pytest.raises(
        StageError, match=r"^lengths: a text has 9 tokens and the longest of 'lengths' is 8; give --max"
    ):
        fitting(9, (4, 8))


def test_an_axis_is_cut_or_padded_with_zeros():
    array = np.arange(6).reshape(2, 3)
    assert fit(array, 2).tolist() == [[0, 1], [3, 4]]
    assert fit(array, 4).tolist() == [[0, 1, 2, 0], [3, 4, 5, 0]]
    assert fit(array, 3, axis=0).tolist() == [[0, 1, 2], [3, 4, 5], [0, 0, 0]]
