"""What a search tries: ranges, choices, single values, and the usual recipe first."""

from __future__ import annotations

import optuna
import pytest
from pydantic import ValidationError

from optimize.cli.parameters import parameters_of
from optimize.tuning.space import USUAL, Tuning, suggest, usual

NAMES = {*USUAL, "seed"}


@pytest.fixture
def study():
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))


def test_what_is_drawn_lies_within_the_space(study):
    space = Tuning(batch_size=(8, 16), seeds=(1, 2))
    drawn = [suggest(study.ask(), space) for _ in range(30)]

    assert {frozenset(each) for each in drawn} == {frozenset(NAMES)}
    for name in ("learning_rate", "epochs", "warmup", "weight_decay", "dropout"):
        low, high = getattr(space, name)
        assert all(low <= each[name] <= high for each in drawn)
        assert len({each[name] for each in drawn}) > 20
    assert {each["batch_size"] for each in drawn} == {8, 16}
    assert {each["seed"] for each in drawn} == {1, 2}


def test_a_single_value_is_not_searched_over(study):
    asked = study.ask()
    space = Tuning(learning_rate=3e-5, epochs=2, batch_size=(16,), warmup=0, weight_decay=0.01, dropout=0.1)

    assert suggest(asked, space) == {
        "learning_rate": 3e-5,
        "epochs": 2,
        "batch_size": 16,
        "warmup": 0,
        "weight_decay": 0.01,
        "dropout": 0.1,
        "seed": 0,
    }
    assert asked.params == {}
    assert usual(space) == {}


def test_the_first_trial_is_the_usual_recipe_as_far_as_the_space_has_it(study):
    assert usual(Tuning()) == USUAL
    narrow = Tuning(learning_rate=(1e-6, 2e-6), batch_size=(8, 24, 64), seeds=(5, 6))
    assert usual(narrow) == {**USUAL, "learning_rate": 2e-6, "batch_size": 24, "seed": 5}

    study.enqueue_trial(usual(narrow))
    drawn = suggest(study.ask(), narrow)
    assert drawn == usual(narrow)


def test_a_trial_that_is_asked_again_says_the_same(study):
    asked = study.ask()
    assert suggest(asked, Tuning()) == suggest(asked, Tuning())


@pytest.mark.parametrize(
    "wrong",
    [
        {"learning_rate": (1e-4, 1e-5)},
        {"learning_rate": 0},
        {"learning_rate": (0, 1e-4)},
        {"epochs": (1, 1)},
        {"warmup": (0, 1)},
        {"dropout": -0.1},
        {"weight_decay": (-0.1, 0.1)},
        {"batch_size": ()},
        {"batch_size": (16, 16)},
        {"batch_size": (0, 16)},
        {"seeds": (-1,)},
        {"trials": 0},
        {"minutes": 0},
        {"nonsense": 1},
    ],
)
def test_what_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValidationError):
        Tuning(**wrong)


def test_yaml_that_has_a_rate_as_text_is_read_as_a_number():
    assert Tuning(learning_rate=["1e-5", "1e-4"]).learning_rate == (1e-5, 1e-4)
    assert Tuning(learning_rate="3e-5").learning_rate == 3e-5


def test_limits_of_the_search_shape_no_trial():
    few, many = Tuning(trials=2, minutes=1), Tuning(trials=20, minutes=90)
    assert few.what_trials_are == many.what_trials_are
    assert few.what_trials_are != Tuning(grace=1).what_trials_are


def test_the_terminal_says_the_types_in_words():
    types = {each.name: each.type for each in parameters_of(Tuning)}
    assert types["learning_rate"] == "number or two numbers"
    assert types["batch_size"] == "list of whole numbers"
