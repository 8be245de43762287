"""The judge of candidates: what a loss consists of, what limits allow, and on how much text."""

import dataclasses
import json

import numpy as np
import pytest

from optimize.evaluate import judge as judging
from optimize.evaluate.drift import Observed
from optimize.evaluate.judge import Loss, distances, make_judge, pad_id_of
from optimize.gates import Gates
from optimize.heads import HEADS
from optimize.interfaces import Encoded, Feature, Score

NAMES = sorted(HEADS)
LOSS = Loss(metric=0.8, drop=0.1, relative_drop=0.125, agreement=0.9, divergence=0.01, sqnr_db=30.0)
NO_LIMIT = 10**9


def encoded(sizes):
    """Examples whose features have these many tokens."""
    features = [
        Feature({"input_ids": np.ones(tokens, np.int64)}, example)
        for example, windows in enumerate(sizes)
        for tokens in windows
    ]
    return Encoded(tuple(features), tuple(range(len(sizes))), 0)


def observed(rows):
    score = Score("accuracy", np.ones((1, 1)), lambda kept: float(kept.mean()), np.ones(1))
    return Observed(score, [np.array(row, np.float32) for row in rows])


def disturbed(session, by):
    def run(feed):
        return {
            name: array + by * np.cos(np.arange(array.size)).reshape(array.shape)
            for name, array in session(feed).items()
        }

    return run


@pytest.mark.parametrize(
    ("limits", "allowed"),
    [
        (Gates(), True),
        (Gates(max_metric_drop=0.1), True),
        (Gates(max_metric_drop=0.09), False),
        (Gates(max_relative_metric_drop=0.125), True),
        (Gates(max_relative_metric_drop=0.12), False),
        (Gates(min_agreement=0.9), True),
        (Gates(min_agreement=0.91), False),
        (Gates(max_metric_drop=0.2, max_relative_metric_drop=0.2, min_agreement=0.95), False),
        (Gates(rule="proven"), True),
    ],
)
def test_limits_allow_what_keeps_all_of_them(limits, allowed):
    assert judging.Judge(HEADS["fill-mask"], encoded([]), observed([]), limits, 0, 0).allows(LOSS) == allowed


@pytest.mark.parametrize(("config", "expected"), [({"pad_token_id": 7}, 7), ({"pad_token_id": None}, 0), ({}, 0)])
def test_the_padding_token_is_the_checkpoints(config, expected, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert pad_id_of(tmp_path) == expected


@pytest.mark.parametrize("head", NAMES)
def test_the_reference_itself_loses_nothing(head, context, apply):
    here = context(head)
    session = apply(here, "export").open(here)
    loss = make_judge(here, session, tokens=NO_LIMIT).assess(session)
    assert (loss.drop, loss.relative_drop, loss.sqnr_db) == (0.0, 0.0, 120.0)
    assert loss.agreement == pytest.approx(1.0)
    assert loss.divergence == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("head", NAMES)
def test_the_more_outputs_are_disturbed_the_more_is_lost(head, context, apply):
    here = context(head)
    session = apply(here, "export").open(here)
    judge = make_judge(here, session, tokens=NO_LIMIT)
    losses = [judge.assess(disturbed(session, by)) for by in (0.01, 0.1, 3.0)]
    assert 1e-9 < losses[0].divergence < losses[1].divergence < losses[2].divergence
    assert losses[0].sqnr_db > losses[1].sqnr_db + 15 > losses[2].sqnr_db + 30
    assert losses[2].agreement < 0.999


def test_a_judge_without_tuning_data_takes_those_of_calibration(context, apply):
    here = context("text-classification")
    here = dataclasses.replace(here, tuning=Encoded((), (), 0))
    judge = make_judge(here, apply(here, "export").open(here), tokens=NO_LIMIT)
    assert judge.encoded == here.calibration


def test_a_loss_is_the_same_under_every_rule_and_held_at_another_end(context, apply):
    here = context("token-classification")
    session = apply(here, "export").open(here)
    limits = [Gates(max_metric_drop=0.0, rule=rule) for rule in ("not_worse", "estimate", "proven")]
    judges = [make_judge(dataclasses.replace(here, limits=each), session, tokens=NO_LIMIT) for each in limits]
    losses = [judge.assess(disturbed(session, 3.0)) for judge in judges]
    assert len({loss.drop for loss in losses}) == 1
    excesses = [judge.excess(loss) for judge, loss in zip(judges, losses, strict=True)]
    assert 0 <= excesses[0] < excesses[1] < excesses[2]
    assert excesses[1] == losses[1].drop


def test_distances_are_those_computed_by_hand():
    ours, theirs = observed([[3.0, 4.0], [0.0, 5.0]]), observed([[3.0, 4.0], [5.0, 0.0]])
    vectors = distances(ours, theirs, HEADS["feature-extraction"])
    assert vectors == pytest.approx((0.5, 0.0))
    assert distances(theirs, theirs, HEADS["feature-extraction"]) == pytest.approx((0.0, 120.0))


def test_logits_that_differ_by_a_constant_do_not_diverge():
    ours, theirs = observed([[1.0, 2.0]]), observed([[2.0, 3.0]])
    assert distances(ours, theirs, HEADS["text-classification"])[0] == pytest.approx(0.0, abs=1e-9)
    odds = observed([[0.0, np.log(3.0)]])
    flat = observed([[0.0, 0.0]])
    expected = 0.5 * np.log(0.5 / 0.25) + 0.5 * np.log(0.5 / 0.75)
    assert distances(odds, flat, HEADS["text-classification"])[0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("limits", "drop", "relative", "agreement", "expected"),
    [
        (Gates(), 0.5, 0.6, 0.1, 0.0),
        (Gates(max_metric_drop=0.01), 0.01, 0.02, 0.0, 0.0),
        (Gates(max_metric_drop=0.01), 0.03, 0.0, 1.0, 0.02),
        (Gates(max_relative_metric_drop=0.01), 0.0, 0.05, 1.0, 0.04),
        (Gates(min_agreement=0.95), -0.1, -0.1, 0.9, 0.05),
        (Gates(max_metric_drop=0.01, min_agreement=0.95), 0.02, 0.0, 0.9, 0.05),
    ],
)
def test_the_excess_is_that_of_the_limit_missed_most(limits, drop, relative, agreement, expected, context):
    judge = dataclasses.replace(judge_of(context), limits=limits)
    assert judge.excess(Loss(0.9, drop, relative, agreement, 0.0, 40.0)) == pytest.approx(expected)


def test_the_error_is_that_of_the_relative_drop(context):
    def right(*answers):
        score = Score("accuracy", np.array(answers, float)[:, None], lambda kept: float(kept.mean()), np.array(answers))
        return Observed(score, [np.zeros((1, 2), np.float32)] * len(answers))

    loss = dataclasses.replace(judge_of(context), reference=right(1, 0, 1, 0)).loss_of(right(1, 0, 0, 0))
    assert (loss.drop, loss.relative_drop) == (0.25, 0.5)
    # One of four answers flips: 0.25 with a standard deviation of 0.43 / 2, of a score of 0.5.
    assert loss.relative_error == pytest.approx(2 * np.sqrt(0.25 * 0.75 / 4), rel=0.15)


@pytest.mark.parametrize(
    ("rule", "lost", "allowed"),
    [
        ("estimate", 2, False),
        ("not_worse", 2, True),
        ("not_worse", 10, False),
        ("proven", 0, False),
        ("estimate", 0, True),
    ],
)
def test_a_loss_within_chance_counts_by_the_rule(rule, lost, allowed, context):
    def right(wrong):
        answers = np.arange(100) >= wrong
        share = Score("accuracy", answers[:, None].astype(float), lambda kept: float(kept.mean()), answers, answers)
        return Observed(share, [np.zeros((1, 2), np.float32)] * 100)

    limits = Gates(max_relative_metric_drop=0.01, rule=rule)
    judge = dataclasses.replace(judge_of(context), limits=limits, reference=right(0))
    assert judge.allows(judge.loss_of(right(lost))) is allowed


def test_what_an_example_lost_is_the_divergence_of_its_own_features(context):
    judge = judge_of(context)
    moved = {0: judge.reference.rows[0] + np.array([0.0, 1.0]), 1: judge.reference.rows[1]}
    found = judge.divergences({**moved, len(judge.reference.rows): moved[0]})
    assert sorted(found) == [0, 1]
    assert found[0] > 1e-3 > found[1] == pytest.approx(0.0, abs=1e-9)


def judge_of(context):
    here = context("text-classification")
    return make_judge(here, here.open("torch", here.reference.path), tokens=NO_LIMIT)
