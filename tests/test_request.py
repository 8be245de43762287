"""Options are declared once; what is made of the declarations agrees with them."""

from __future__ import annotations

import shlex
from dataclasses import fields, replace

import pytest
from report.conftest import REQUEST, make_manifest

from optimize.config import SECTIONS
from optimize.errors import RequestError
from optimize.manifest import Manifest, dump
from optimize.request import (
    Asked,
    Options,
    declared,
    kept,
    options_of,
    read_columns,
    read_runtime,
    read_settings,
    read_shapes,
    read_share,
    settings_of,
    words_of,
    write_pairs,
    write_setting,
)
from optimize.stages import STAGES


@pytest.mark.parametrize("name", declared())
def test_every_option_says_what_it_means(name):
    meaning = declared()[name].option.meaning

    assert meaning[0].isupper()
    assert meaning.endswith(".")


def test_every_field_is_declared():
    assert declared().keys() == {field.name for field in fields(Options)}
    assert declared(Asked).keys() == {field.name for field in fields(Asked)}


def test_every_option_that_may_be_left_out_says_what_then():
    unsaid = {name for name, each in declared().items() if each.default is None and not each.option.otherwise}
    # Left out, these are not asked for at all.
    assert unsaid == {"revision", "data_config", "data_revision", "budget", "fastest_within", "vocabulary", "minutes"}


def test_every_shorthand_sets_a_parameter_that_there_is():
    for each in declared().values():
        if each.option.sets:
            owner, _, parameter = each.option.sets.partition(".")
            assert owner in SECTIONS or parameter in STAGES[owner].params.model_fields
            assert f"--set {each.option.sets}" in each.option.meaning


def test_a_request_of_an_older_manifest_is_read():
    older = {name: value for name, value in REQUEST.items() if name not in ("data_revision", "training_examples")}

    request = make_manifest(request=older).request

    assert (request.settings, request.runtime, request.training_examples, request.budget) == ({}, {}, 0, None)


@pytest.mark.parametrize("change", [{"nonsense": 1}, {"seed": "many"}, {"target": None}])
def test_a_request_that_makes_no_sense_is_refused(change):
    with pytest.raises(ValueError, match="request"):
        make_manifest(request={**REQUEST, **change})


def test_a_request_without_its_target_is_refused():
    with pytest.raises(ValueError, match="target"):
        make_manifest(request={name: value for name, value in REQUEST.items() if name != "target"})


def test_a_manifest_with_settings_reads_as_it_was_written():
    settings = {"runtime.device": "GPU", "quantize_static.exclude": ["a", "b"]}
    manifest = make_manifest(request={**REQUEST, "settings": settings, "runtime": {"device": "GPU"}})

    assert Manifest.model_validate_json(dump(manifest)) == manifest


def test_a_request_can_be_asked_again_without_what_its_stages_have_already(tmp_path):
    asked = {**REQUEST, "budget": 0.5, "settings": {"prune.tokens": 64}, "runtime": {"device": "GPU"}}
    request = make_manifest(request=asked).request

    options = options_of(request, out=tmp_path, cache=None)

    assert settings_of(options) == []
    assert (options.model, options.shapes, options.seed) == (request.model, request.shapes, request.seed)
    assert options.out == tmp_path


def test_where_no_stage_trains_the_usual_number_is_asked_for_again(tmp_path):
    request = make_manifest(request={**REQUEST, "training_examples": 0}).request

    assert options_of(request, out=tmp_path, cache=None).training_examples == Options().training_examples
    assert "training_examples" not in {each.name for each, _ in words_of(request)}


def test_all_that_sets_a_parameter_is_one_list():
    options = Options(runtime={"hint": "latency"}, device="GPU", vocabulary="a.txt", settings={"prune.tokens": 64})

    assert {each.name: (each.value, each.where) for each in settings_of(options)} == {
        "runtime.hint": ("latency", "--runtime"),
        "runtime.device": ("GPU", "--device"),
        "prune_vocabulary.corpus": ("a.txt", "--vocabulary"),
        "prune.tokens": (64, "--set"),
    }


def test_a_manifest_keeps_what_was_set_and_what_has_a_field_of_its_own_there():
    options = Options(device="GPU", budget=0.5, settings={"prune.tokens": 64})

    found = kept(options)

    assert found["settings"] == {"runtime.device": "GPU", "prune.tokens": 64}
    assert found["budget"] == 0.5
    assert found.keys() == declared(Asked).keys()


@pytest.mark.parametrize(
    "changes",
    [
        {"budget": 0.5, "settings": {"prune.budget": 0.5}},
        {"device": "GPU", "runtime": {"device": "NPU"}},
        {"budget": 0.5, "fastest_within": 0.01},
    ],
)
def test_one_parameter_is_set_once(changes):
    with pytest.raises(RequestError, match=r"give one of the two$"):
        settings_of(replace(Options(), **changes))


def test_what_was_chosen_has_a_runtime_of_its_own():
    asked = {**REQUEST, "settings": {"runtime.hint": "latency"}, "runtime": {"hint": "latency", "device": "CPU"}}
    request = make_manifest(request=asked).request

    said = {chosen: [words for _, words in words_of(request, chosen=chosen)] for chosen in (False, True)}

    assert "--runtime hint=latency,device=CPU" in said[False]
    assert "--set runtime.hint=latency" in said[True]
    assert not any(words.startswith("--runtime") for words in said[True])
    assert not any(words.startswith("--set") for words in said[False])


@pytest.mark.parametrize("value", ["text", 3, 0.5, True, None, ["a b", "*"], {"a": 1}, "true"])
def test_a_value_is_read_as_it_was_written(value):
    words = shlex.split(shlex.quote(f"stage.parameter={write_setting(value)}"))

    assert read_settings(words, "--set") == {"stage.parameter": value}


@pytest.mark.parametrize("text", ["stage", "stage.parameter", "stage.parameter=", ".parameter=1", "stage.=1", "=1"])
def test_what_is_not_a_setting_is_refused(text):
    with pytest.raises(RequestError, match=r"^--set: .* is not stage.parameter=value"):
        read_settings([text], "--set")


def test_columns_and_settings_of_the_runtime_are_read_as_they_are_written():
    assert read_columns("text=the review, label=stars", "") == {"text": "the review", "label": "stars"}
    assert read_runtime(write_pairs({"hint": "latency", "tf32": True, "lengths": [16, 64], "cache": None}), "") == {
        "hint": "latency",
        "tf32": "true",
        "lengths": "16 64",
    }


@pytest.mark.parametrize("read", [read_columns, read_runtime])
def test_what_is_not_a_pair_is_refused(read):
    with pytest.raises(RequestError, match=r"^--flag: 'a,b=1' is not "):
        read("a,b=1", "--flag")


@pytest.mark.parametrize(("text", "share"), [("1%", 0.01), (" 0.5 % ", 0.005), ("0.02", 0.02)])
def test_a_share_is_read_as_percent_or_as_a_number(text, share):
    assert read_share(text, "--fastest-within") == share


def test_shapes_are_read_without_the_blanks_around_them():
    assert read_shapes(" 1x16, data,", "--shapes") == ("1x16", "data")
