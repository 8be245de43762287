"""Optuna's search: it asks for no point twice, learns from what it is told, and remembers an earlier call."""

from __future__ import annotations

import pytest
from sweep.swept_cases import trial

from optimize.sweep.matrix import Matrix
from optimize.sweep.study import askers_of

MODELS = [{"model": "demo", "head": "text-classification"}]
SPAN = {"prune.budget": {"low": 0.3, "high": 0.9}, "quantize_static.method": ["mse", "percentile"]}


def asker(**search):
    matrix = Matrix(models=MODELS, pipelines=["cpu-pruned"], settings=SPAN, search=search)
    (found,) = askers_of(matrix, "f.yaml")
    return found


def result(point):
    """As if pruning cost accuracy by its square and gained speed, and `mse` were better."""
    kept = point.settings["prune.budget"]
    drop = (1 - kept) ** 2 / 50 + (point.settings["quantize_static.method"] != "mse") / 100
    shown = {"pipeline": point.pipeline, "settings": dict(point.settings), "model": point.model, "label": point.label}
    return trial(point.id, drop=drop, speed=2.0 / kept, size=kept / 4, **shown)


def trial_of(point):
    """As if all points were alike."""
    return trial(point.id, pipeline=point.pipeline, settings=dict(point.settings), model=point.model)


def rounds(one, known=result):
    found = []
    while points := one.ask():
        found += points
        one.tell([known(point) for point in points])
    return found


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_as_many_points_are_tried_as_asked_for_none_twice(sampler):
    points = rounds(asker(sampler=sampler, trials=15, batch=4))
    assert len(points) == len({point.id for point in points}) == 15
    assert all(0.3 <= point.settings["prune.budget"] <= 0.9 for point in points)


def test_it_comes_to_prefer_what_loses_less_at_the_same_speed():
    points = rounds(asker(trials=40, batch=2))
    late = [point.settings["quantize_static.method"] for point in points[20:]]
    assert late.count("mse") > len(late) / 2


def test_a_space_that_is_used_up_ends_the_search():
    matrix = Matrix(models=MODELS, pipelines=["cpu-static", "cpu-dynamic"], search={"trials": 30, "batch": 4})
    (one,) = askers_of(matrix, "f.yaml")
    assert sorted(point.label for point in rounds(one, trial_of)) == ["cpu-dynamic", "cpu-static"]


def test_what_failed_is_not_asked_for_again():
    one = asker(trials=6, batch=3)
    points = one.ask()
    one.tell([trial(point.id, outcome="failed", tuning=None) for point in points])
    assert not {point.id for point in points} & {point.id for point in rounds(one)}


def test_what_an_earlier_call_measured_counts():
    first = asker(trials=8, batch=4)
    known = [result(point) for point in rounds(first)]
    again = asker(trials=8, batch=4)
    assert {point.id for point in again.remember(known)} == {each.id for each in known}
    assert again.ask() == []
    further = asker(trials=12, batch=4)
    further.remember(known)
    assert len(rounds(further)) == 4


def test_lists_can_be_chosen_from():
    span = {"quantize_static.exclude": [[], ["*ffn*"]]}
    matrix = Matrix(models=MODELS, pipelines=["cpu-static"], settings=span, search={"trials": 5, "batch": 2})
    (one,) = askers_of(matrix, "f.yaml")
    assert sorted(str(point.settings["quantize_static.exclude"]) for point in rounds(one, trial_of)) == [
        "['*ffn*']",
        "[]",
    ]
