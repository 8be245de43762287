"""The parity check: its probes hold what breaks graphs, and any difference that is read is refused."""

import dataclasses

import numpy as np
import pytest

from optimize.errors import StageError
from optimize.evaluate.parity import SHAPES, check_parity, compare, probes


def kinds_of(mask):
    """Which of full, right-padded, left-padded and holed occur among a mask's rows."""
    kinds = set()
    for row in mask.reshape(-1, mask.shape[-1]):
        steps = np.flatnonzero(np.diff(row))
        if row.all():
            kinds.add("full")
        elif len(steps) > 1:
            kinds.add("holed")
        else:
            kinds.add("right-padded" if row[0] else "left-padded")
    return kinds


def with_sessions(context, reference, candidate):
    """The context with made-up sessions in place of both models."""
    return dataclasses.replace(context, open=lambda kind, folder: reference if kind == "torch" else candidate)


def logits_of(feed):
    return {"logits": np.repeat(feed["input_ids"][..., None] / 100.0, 2, axis=-1).astype(np.float32)}


@pytest.fixture
def tagger(random_context):
    return random_context("token-classification")


def test_probes_hold_every_kind_of_mask_in_batches_and_alone(tagger):
    seen = {
        (feed["input_ids"].shape[0] > 1, kind) for feed in probes(tagger) for kind in kinds_of(feed["attention_mask"])
    }
    assert seen == {
        (batched, kind) for batched in (True, False) for kind in ("full", "right-padded", "left-padded", "holed")
    }


def test_every_row_of_every_probe_has_a_token_to_look_at(tagger):
    assert all(feed["attention_mask"].any(axis=-1).all() for feed in probes(tagger))


def test_probes_hold_a_single_token_and_token_ids_of_the_vocabulary_only(tagger):
    feeds = list(probes(tagger))
    assert min(feed["input_ids"].shape[-1] for feed in feeds) == 1
    assert all(((feed["input_ids"] >= 0) & (feed["input_ids"] < 203)).all() for feed in feeds)
    assert {array.dtype for feed in feeds for array in feed.values()} == {np.dtype("int64")}


@pytest.mark.parametrize(("positions", "longest"), [(16, 16), (64, 33), (128, 128)])
def test_probes_stay_within_the_positions_of_the_model(positions, longest, random_context):
    here = random_context("token-classification", max_position_embeddings=positions)
    assert max(feed["input_ids"].shape[-1] for feed in probes(here)) == longest
    assert max(tokens for _, tokens in SHAPES) == 128


def test_probes_of_multiple_choice_have_the_choices_of_the_data(random_context):
    shapes = {feed["input_ids"].shape for feed in probes(random_context("multiple-choice"))}
    assert {shape[1] for shape in shapes} == {3}
    assert {len(shape) for shape in shapes} == {3}


def test_probes_are_the_same_each_time_and_others_with_another_seed(tagger):
    ids = [np.concatenate([feed["input_ids"].ravel() for feed in probes(c)]) for c in (tagger, tagger)]
    other = np.concatenate([feed["input_ids"].ravel() for feed in probes(dataclasses.replace(tagger, seed=1))])
    assert np.array_equal(*ids)
    assert not np.array_equal(ids[0], other)


def test_the_difference_is_that_of_what_the_head_reads(tagger, tmp_path):
    def astray_where_masked(feed):
        return {"logits": logits_of(feed)["logits"] + 9 * (feed["attention_mask"] == 0)[..., None].astype(np.float32)}

    here = with_sessions(tagger, logits_of, astray_where_masked)
    worst, scale = compare(tmp_path, here.reference, here)
    assert worst == 0
    assert 1.9 < scale <= 2.02


@pytest.mark.parametrize("kind", ["full", "right-padded", "left-padded", "holed"])
def test_an_error_under_one_kind_of_mask_alone_is_refused(kind, tagger, tmp_path):
    def astray(feed):
        wrong = [[kind in kinds_of(row)] for row in feed["attention_mask"]]
        return {"logits": logits_of(feed)["logits"] + np.array(wrong, dtype=np.float32)[..., None]}

    with pytest.raises(
        StageError, match=r"^fuse: outputs differ from the source model's by 1\.00e\+00 \(allowed 2e-04\); this graph"
    ):
        check_parity(tmp_path, tagger.reference, with_sessions(tagger, logits_of, astray), stage="fuse", tolerance=1e-4)


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_outputs_that_are_no_numbers_are_refused(poison, tagger, tmp_path):
    def broken(feed):
        logits = logits_of(feed)["logits"]
        logits[0, 0, 0] = poison if feed["attention_mask"][0, 0] and len(logits) > 2 else logits[0, 0, 0]
        return {"logits": logits}

    with pytest.raises(StageError, match=r"^export: outputs differ from the source model's by (nan|inf)"):
        check_parity(
            tmp_path, tagger.reference, with_sessions(tagger, logits_of, broken), stage="export", tolerance=1e-4
        )


@pytest.mark.parametrize(("size", "passes"), [(1000.0, True), (0.001, False)])
def test_the_tolerance_is_relative_to_large_outputs_and_absolute_for_small_ones(size, passes, tagger, tmp_path):
    def scaled(feed):
        return {"logits": logits_of(feed)["logits"] * np.float32(size)}

    def off(feed):
        return {"logits": scaled(feed)["logits"] + np.float32(0.01)}

    here = with_sessions(tagger, scaled, off)
    if passes:
        assert check_parity(tmp_path, here.reference, here, stage="export", tolerance=1e-4) == pytest.approx(
            0.01, rel=0.05
        )
    else:
        with pytest.raises(StageError, match="allowed 1e-04"):
            check_parity(tmp_path, here.reference, here, stage="export", tolerance=1e-4)
