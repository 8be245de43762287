"""What is refused before anything is downloaded or trained."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import pytest
from tuning.cases import HEAD, short_options

from optimize.errors import DataError, RequestError, UnavailableError
from optimize.request import Options
from optimize.tuning.plan import plan_tuning


@pytest.fixture
def options(tmp_path, checkpoint, data_folder):
    usual = short_options(tmp_path, checkpoint(HEAD), data_folder(HEAD))
    return lambda **others: replace(usual, **others)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": None}, "^--head: missing; say what to train the checkpoint for"),
        ({"head": "feature-extraction"}, "^--head: 'feature-extraction' has no labels to learn from"),
        ({"head": "text-clasification"}, "did you mean 'text-classification'"),
        ({"head": "mine.py:HEAD"}, "^--head: unknown name 'mine.py:HEAD'"),
        ({"settings": {"tune.learning_rat": 1e-5}}, "^--set: tune: unknown name 'learning_rat'; did you mean"),
        ({"settings": {"tune.epochs": [3, 1]}}, "^--set: tune: epochs: is one number, or two of which the second"),
        ({"settings": {"tune.train_embedding": 7}}, "^--set: tune: train_embedding: "),
        ({"settings": {"prune.budget": 0.5}}, "^--set: unknown name 'prune'; "),
        ({"minutes": 5.0, "settings": {"tune.minutes": 6}}, "^--set: sets tune.minutes, as --minutes does"),
        ({"tuning_examples": 0}, "^--tuning-examples: 0 leave nothing to measure trials on"),
        ({"training_examples": 0}, "^--training-examples: 0 is too few"),
        ({"model": " "}, "^--model: is empty"),
    ],
)
def test_what_cannot_be_met_is_refused_in_a_line(changes, message, options):
    with pytest.raises(RequestError, match=message) as refused:
        plan_tuning(options(**changes))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("on", "message"),
    [
        ("rey", "^--on: 'rey' is no place to work; write ray, ray:auto or ray:HOST:PORT$"),
        ("ray:head", "^--on: 'ray:head' names no address; write ray, ray:auto or ray:HOST:PORT$"),
        ("ray://head:10001", "^--on: 'ray://head:10001' is an address of Ray Client, which is not used here"),
    ],
)
def test_a_place_that_is_none_is_refused(on, message, options):
    with pytest.raises(RequestError, match=message):
        plan_tuning(options(), on=on)


@pytest.mark.parametrize(
    ("on", "address"), [(None, None), ("ray", "local"), ("ray:auto", "auto"), ("ray:h:63", "h:63")]
)
def test_where_trials_run_is_read(on, address, options):
    pytest.importorskip("ray")
    assert plan_tuning(options(), on=on).ray == address


@pytest.mark.parametrize(("library", "on", "extra"), [("optuna", None, "tune"), ("ray", "ray", "ray")])
def test_without_the_library_it_says_what_to_install(library, on, extra, options, monkeypatch):
    usual = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == library else usual(name))
    with pytest.raises(UnavailableError) as refused:
        plan_tuning(options(), on=on)
    assert str(refused.value) == f"tune: {library} is not installed; pip install 'distilbert-optimize[{extra}]'"


def test_data_without_the_heads_columns_are_refused(options, data_folder):
    with pytest.raises(DataError, match="no columns for head 'text-classification'"):
        plan_tuning(options(data=str(data_folder("question-answering"))))


def test_the_demo_is_for_texts_unless_it_is_said_for_what():
    plan = plan_tuning(Options(model="demo"))
    assert (plan.head.name, plan.wanted.data, plan.on) == (HEAD, "demo", "here")


def test_trials_and_minutes_are_short_for_parameters(options):
    plan = plan_tuning(options(minutes=7.5, settings={"tune.trials": 2}))
    assert (plan.tuning.trials, plan.tuning.minutes) == (2, 7.5)
    with pytest.raises(RequestError, match=r"^--set: sets tune\.trials, as --trials does"):
        plan_tuning(options(), trials=3)
