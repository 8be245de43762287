"""What `show` and `copy` do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from optimize.cli import names
from optimize.cli.parameters import parameters_of
from optimize.cli.show import lines_of
from optimize.config import load_pipeline, shipped_pipelines
from optimize.gates import Gates
from optimize.heads import HEADS
from optimize.stages import STAGES
from optimize.targets import TARGETS


@pytest.mark.parametrize("stage", STAGES)
def test_every_parameter_of_a_stage_is_shown_with_type_default_and_meaning(stage, optimize, capsys):
    assert optimize("show", stage) == 0

    out = " ".join(capsys.readouterr().out.split())
    for name, field in STAGES[stage].params.model_fields.items():
        assert f" {name} (" in out
        assert " ".join(field.description.split()) in out


def test_types_bounds_and_defaults_are_those_that_yaml_has():
    shown = {each.name: each for each in parameters_of(STAGES["quantize_static"].params)}

    assert shown["method"].type == "minmax, moving_average, percentile, entropy or mse"
    assert (shown["percentile"].bounds, shown["percentile"].default) == (("> 50", "≤ 100"), "99.99")
    assert (shown["include"].type, shown["include"].default) == ("list of texts", "['*']")
    assert shown["smooth"].default == "true"
    assert shown["tolerance"].default == "0.0001"
    assert {each.name: each.default for each in parameters_of(Gates)}["min_speedup"] == "not set"


def test_what_has_to_be_given_is_said():
    corpus = {"name": "corpus", "type": "path", "bounds": [], "default": None, "meaning": "Texts.", "fields": []}
    lines = list(lines_of({"stage": "mine", "summary": "Mine", "parameters": [corpus]}, 80))

    assert "  corpus  (path; required)" in lines


def test_what_may_be_left_out_is_said_too(optimize, capsys):
    optimize("show", "prune_vocabulary")

    assert "corpus  (path; default not set)" in capsys.readouterr().out


def test_a_section_says_how_it_is_set(optimize, capsys):
    optimize("show", "search")

    out = capsys.readouterr().out
    assert "section search" in out
    assert "Set one with: optimize run --set search.PARAMETER=VALUE" in out

    optimize("show", "tune")
    out = capsys.readouterr().out
    assert "learning_rate  (number or two numbers; default [1.0e-05, 0.0001])" in out
    assert "Set one with: optimize tune --set tune.PARAMETER=VALUE" in out


def test_parameters_within_a_parameter_are_shown_too(optimize, capsys):
    optimize("show", "quantize_neural_compressor")

    assert "      observer  (minmax or kl; default minmax)" in capsys.readouterr().out


@pytest.mark.parametrize("name", shipped_pipelines())
def test_a_pipeline_is_shown_with_its_comment_stages_and_limits(name, optimize, capsys):
    assert optimize("show", name) == 0

    out = capsys.readouterr().out
    pipeline = load_pipeline(name)
    assert f"pipeline {name}\n" in out
    assert [step.stage for step in pipeline.stages if step.stage not in out] == []
    limits = pipeline.gates.model_dump(exclude_unset=True)
    assert [limit for limit in limits if f"    {limit}: " not in out] == []


def test_a_pipeline_of_ones_own_is_shown(tmp_path, optimize, capsys):
    path = tmp_path / "mine.yaml"
    path.write_text("# Mine.\n# Fast.\ntarget: cpu\nstages: [export: {lean: true}]\n", encoding="utf-8")

    assert optimize("show", str(path)) == 0

    out = capsys.readouterr().out
    assert "  Mine. Fast.\n" in out
    assert "    1. export: {lean: true}\n" in out


def test_a_target_and_its_own_pipeline_are_both_shown(optimize, capsys):
    optimize("show", "cuda", "--json")

    target, pipeline = json.loads(capsys.readouterr().out)
    assert (target["target"], pipeline["pipeline"]) == ("cuda", "cuda")
    assert [each["name"] for each in target["parameters"]] == list(TARGETS["cuda"].runtime.model_fields)


@pytest.mark.parametrize("name", [*HEADS, "gates"])
def test_heads_and_limits_are_shown(name, optimize, capsys):
    assert optimize("show", name) == 0
    assert name in capsys.readouterr().out


def test_an_unknown_name_is_refused_with_the_nearest(optimize, capsys):
    assert optimize("show", "quantize_statik") == 2
    assert "did you mean 'quantize_static'?" in capsys.readouterr().err


@pytest.mark.parametrize("width", [60, 80, 100])
@pytest.mark.parametrize("name", [*STAGES, "cpu", "gates"])
def test_a_page_keeps_to_its_width(name, width):
    for document in names.describe(name):
        long = [line for line in lines_of(document, width) if len(line) > width]
        # A path cannot be broken.
        assert [line for line in long if "/" not in line] == []


def test_a_copy_is_the_shipped_file_and_runs(tmp_path, optimize, capsys):
    file = tmp_path / "new" / "mine.yaml"

    assert optimize("copy", "cpu-static", str(file)) == 0

    assert file.read_bytes() == shipped_pipelines()["cpu-static"].read_bytes()
    assert f"optimize run --pipeline {file}" in capsys.readouterr().out
    assert load_pipeline(str(file)).stages == load_pipeline("cpu-static").stages


def test_a_file_is_overwritten_only_by_force(tmp_path, optimize, capsys):
    file = tmp_path / "mine.yaml"
    file.write_text("mine", encoding="utf-8")

    assert optimize("copy", "cpu", str(file)) == 2
    assert file.read_text(encoding="utf-8") == "mine"
    assert "--force" in capsys.readouterr().err

    assert optimize("copy", "cpu", str(file), "--force") == 0
    assert file.read_bytes() == shipped_pipelines()["cpu"].read_bytes()


@pytest.mark.parametrize(
    ("pipeline", "file", "says"),
    [("cpu-statik", "mine.yaml", "did you mean 'cpu-static'?"), ("cpu", "mine", "ends in .yaml; name it mine.yaml")],
)
def test_a_copy_that_could_not_be_run_is_refused(pipeline, file, says, tmp_path, optimize, capsys):
    assert optimize("copy", pipeline, str(tmp_path / file)) == 2
    assert says in capsys.readouterr().err
    assert list(Path(tmp_path).iterdir()) == []
