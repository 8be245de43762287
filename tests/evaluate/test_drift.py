from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from doubles import LABELLING

from optimize.errors import StageError
from optimize.evaluate import drift
from optimize.evaluate.drift import Observed
from optimize.interfaces import Feature, Feed, Head, Score
from optimize.manifest import Drift


def observed(decisions: list[float], *rows: list[list[float]], ordinal: bool = False) -> Observed:
    score = Score("m", np.zeros((1, 1)), lambda table: 0.0, decisions=np.array(decisions), ordinal=ordinal)
    return Observed(score, [np.array(each, dtype=np.float32) for each in rows])


def measure(ours: Observed, theirs: Observed, head: Head = LABELLING) -> Drift:
    return drift.measure_drift(ours, theirs, head=head, padding_max_abs=0.0, batch_max_abs=0.0)


def features(*lengths: int) -> list[Feature]:
    ids = [np.arange(1, length + 1) for length in lengths]
    return [Feature({"input_ids": row, "attention_mask": np.ones_like(row)}, example=0) for row in ids]


def seen(*examples: int) -> list[Feature]:
    ids = np.ones(1, dtype=np.int64)
    return [Feature({"input_ids": ids, "attention_mask": ids}, example) for example in examples]


def test_a_model_beside_itself_has_not_moved() -> None:
    same = observed([0, 1], [[1.0, 2.0]], [[-3.0, 0.5]])
    found = measure(same, same)
    assert (found.agreement, found.flips, found.kl, found.max_abs, found.mean_abs) == (1.0, 0, 0.0, 0.0, 0.0)
    assert (found.decisions, found.compared, found.cosine) == (2, 2, None)


def test_flips_are_decisions_that_differ() -> None:
    found = measure(observed([0, 1, 1, 0], [[0.0]]), observed([0, 1, 0, 0], [[0.0]]))
    assert (found.agreement, found.flips, found.decisions) == (0.75, 1, 4)


def test_kl_is_from_the_reference_to_the_candidate_in_nats() -> None:
    reference, candidate = [[np.log(0.5), np.log(0.5)]], [[np.log(0.9), np.log(0.1)]]
    found = measure(observed([0], candidate), observed([0], reference))
    assert found.kl == pytest.approx(0.5 * np.log(0.5 / 0.9) + 0.5 * np.log(0.5 / 0.1), rel=1e-6)


def test_kl_is_a_mean_over_rows_and_blind_to_shifts_of_logits() -> None:
    found = measure(observed([0], [[0.0, 1.0], [2.0, 3.0]]), observed([0], [[5.0, 6.0], [7.0, 8.0]]))
    assert found.kl == pytest.approx(0.0, abs=1e-9)
    assert (found.max_abs, found.mean_abs) == (5.0, 5.0)


def test_a_single_logit_has_no_distribution_to_diverge() -> None:
    assert measure(observed([0], [[1.0]]), observed([0], [[2.0]])).kl is None


def test_cosine_is_measured_where_rows_are_vectors() -> None:
    vectors = replace(LABELLING, rows_are="vectors")
    found = measure(observed([0], [[3.0, 4.0], [0.0, 2.0]]), observed([0], [[1.0, 0.0], [0.0, 1.0]]), vectors)
    assert found.cosine == pytest.approx((0.6 + 1.0) / 2)
    assert found.kl is None


def test_orderings_agree_by_the_pairs_they_order_alike() -> None:
    ours, theirs = observed([1, 2, 4, 3], [[0.0]], ordinal=True), observed([1, 2, 3, 4], [[0.0]], ordinal=True)
    found = measure(ours, theirs)
    assert found.agreement == pytest.approx(5 / 6)
    assert (found.flips, found.decisions) == (1, 6)


def test_an_ordering_that_collapsed_does_not_pass_for_agreement() -> None:
    collapsed, theirs = observed([7, 7, 7], [[0.0]], ordinal=True), observed([1, 2, 3], [[0.0]], ordinal=True)
    assert measure(collapsed, theirs).agreement == 0.5
    broken = observed([1, np.nan, 3], [[0.0]], ordinal=True)
    assert measure(broken, theirs).agreement == 0.0


def test_only_the_rows_that_both_models_kept_are_compared() -> None:
    found = measure(observed([0], [[1.0, 1.0]]), observed([0], [[1.0, 1.0]], [[9.0, 9.0]]))
    assert (found.compared, found.max_abs) == (1, 0.0)


def test_a_value_that_is_not_a_number_is_never_close() -> None:
    largest, mean = drift.distances([(np.array([1.0, np.nan]), np.array([1.0, 1.0])), (np.ones(1), np.ones(1))])
    assert np.isnan(largest)
    assert np.isnan(mean)


def test_rows_of_different_features_are_refused() -> None:
    with pytest.raises(StageError, match="on the same features"):
        measure(observed([0], [[1.0]]), observed([0], [[1.0, 2.0]]))


def test_examples_that_two_tokenizers_split_into_other_numbers_of_tokens_are_left_out() -> None:
    theirs = (observed([0], [[1.0]], [[2.0]], [[3.0], [3.0]], [[4.0]]), seen(0, 1, 1, 2))
    ours = (observed([0], [[1.5]], [[9.0]], [[9.0]], [[4.0]]), seen(0, 1, 1, 2))

    first, second, left_out = drift.alike(ours, theirs)

    found = drift.measure_drift(
        first, second, head=LABELLING, padding_max_abs=0.0, batch_max_abs=0.0, left_out=left_out
    )
    assert (found.compared, found.left_out, found.max_abs) == (2, 1, 0.5)


def test_where_no_example_can_be_compared_nothing_is_said_of_rows() -> None:
    ours, theirs = (observed([0], [[1.0]]), seen(0)), (observed([0], [[1.0], [1.0]]), seen(0))

    first, second, left_out = drift.alike(ours, theirs)

    found = drift.measure_drift(
        first, second, head=LABELLING, padding_max_abs=0.0, batch_max_abs=0.0, left_out=left_out
    )
    assert (found.compared, found.left_out, found.agreement) == (0, 1, 1.0)
    assert (found.max_abs, found.mean_abs, found.kl, found.cosine) == (None, None, None, None)


def test_examples_whose_rows_were_not_kept_are_not_counted_as_left_out() -> None:
    ours, theirs = (observed([0], [[1.0]]), seen(0, 1)), (observed([0], [[1.0]], [[1.0]]), seen(0, 1))
    assert drift.alike(ours, theirs)[2] == 0


def test_a_model_that_minds_its_mask_is_invariant() -> None:
    def model(feed: Feed) -> Feed:
        return {"logits": feed["input_ids"][..., None] * 0.5}

    assert drift.invariance(model, LABELLING, features(3, 9, 5), pad_id=0, max_tokens=64) == (0.0, 0.0)


def test_a_model_that_sees_padding_is_caught_alone_and_in_batches() -> None:
    def model(feed: Feed) -> Feed:
        width = feed["input_ids"].shape[1]
        return {"logits": np.full((*feed["input_ids"].shape, 1), float(width))}

    assert drift.invariance(model, LABELLING, features(4, 10), pad_id=0, max_tokens=64) == (32.0, 6.0)
    assert drift.invariance(model, LABELLING, features(4, 10), pad_id=0, max_tokens=20) == (16.0, 6.0)


def test_a_model_that_sees_its_batch_mates_is_caught() -> None:
    def model(feed: Feed) -> Feed:
        return {"logits": np.full((*feed["input_ids"].shape, 1), float(len(feed["input_ids"])))}

    assert drift.invariance(model, LABELLING, features(*range(3, 33)), pad_id=0, max_tokens=512) == (0.0, 7.0)


def test_probes_are_spread_from_the_shortest_to_the_longest() -> None:
    picked = drift.spread(features(*range(100, 0, -1)), 16)
    assert [picked[0].tokens, picked[-1].tokens, len({one.tokens for one in picked})] == [1, 100, 16]


def test_mixed_batches_hold_short_and_long_features() -> None:
    batches = list(drift.mixed_batches(features(*range(1, 17)), tokens=10**6))
    assert [[one.tokens for one in batch] for batch in batches] == [list(range(1, 17, 2)), list(range(2, 17, 2))]
