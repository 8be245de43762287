"""Whole runs on the OpenVINO target: what is measured of which model, checked again, published."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from doubles import Silent
from libraries import needs

from optimize import manifest
from optimize.certifying import certify
from optimize.planning import Options, make_plan
from optimize.publishing.publish import publish
from optimize.running import run
from optimize.runtimes.openvino import core

pytestmark = [needs("openvino", "nncf"), pytest.mark.usefixtures("few_runs")]
HEAD = "token-classification"  # its few training steps are enough to know more than one tag for every word
PIPELINE = """
target: openvino
stages:
  - export: {lean: true}
  - convert_openvino
  - quantize_openvino: {accuracy_control: false}
  - reshape_openvino: {tokens: 1..48}
runtime: {hint: throughput}
gates: {min_agreement: 0.5, max_size_ratio: 0.9}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("openvino")


@pytest.fixture(scope="module")
def options(place, checkpoint, data_folder) -> Options:
    (place / "mine.yaml").write_text(PIPELINE, encoding="utf-8")
    return Options(
        model=str(checkpoint(HEAD)),
        data=str(data_folder(HEAD)),
        examples=40,
        calibration_examples=16,
        tuning_examples=24,
        shapes=("1x16", "1x64"),
        threads=1,
        pipeline=str(place / "mine.yaml"),
        out=place / "runs",
        cache=place / "cache",
    )


@pytest.fixture(scope="module")
def finished(options) -> tuple[Path, manifest.Manifest]:
    return run(make_plan(options), progress=Silent())


def test_what_the_target_runs_is_measured_there_and_the_onnx_graph_is_not(finished):
    names = [each.name for each in finished[1].measurements]
    assert names == [
        "pytorch-fp32",
        "openvino-fp32",
        "convert_openvino",
        "quantize_openvino",
        "reshape_openvino",
    ]
    kinds = [record.artifact.kind for record in finished[1].stages]
    assert kinds == ["onnx", "openvino", "openvino", "openvino"]


def test_the_manifest_says_how_and_on_what_the_model_ran(finished):
    made = finished[1]
    assert made.request.runtime["hint"] == "throughput"
    assert made.environment.device["device"] == "CPU"
    assert "FP32" in made.environment.device["capabilities"]
    runtimes = {each.name: each.runtime for each in made.measurements}
    assert runtimes["pytorch-fp32"] == {"device": "cpu", "dtype": "float32", "compiled": False}
    assert runtimes["openvino-fp32"]["precision"] == "f32"
    assert runtimes["quantize_openvino"] == made.request.runtime
    assert manifest.read(finished[0]) == made


def test_texts_and_shapes_keep_to_the_bounds(finished):
    made = finished[1]
    last = made.measurements[-1]
    assert [each.shape for each in last.latency] == ["1x16"]
    assert last.not_measured["latency 1x64"] == "longer than the model's 48 positions"
    assert made.stages[-1].facts["shape"] == "[?,1..48]"


def test_speed_is_given_over_both_references(finished):
    assert set(finished[1].measurements[-1].latency[0].speedup) == {"pytorch-fp32", "openvino-fp32"}


@pytest.mark.slow
def test_a_run_is_checked_again_with_its_own_settings(finished, options):
    folder, old = finished
    _, again = certify(folder, model=None, data=None, cache=options.cache, progress=Silent())
    assert (again.request, again.stages) == (old.request, old.stages)
    assert again.measurements[-1].metric == old.measurements[-1].metric
    assert again.measurements[-1].runtime == old.request.runtime
    assert again.verdict.outcome == old.verdict.outcome == "passed"


def test_a_publication_holds_the_model_under_the_names_that_others_look_for(finished, tmp_path):
    publish(finished[0], str(tmp_path / "out"))
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"openvino_model.xml", "openvino_model.bin", "config.json", "tokenizer.json", "README.md"} <= names
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "OVModelForTokenClassification" in card
    assert "--runtime device=CPU" in card
    core().read_model(tmp_path / "out" / "openvino_model.xml")


@pytest.mark.slow
def test_the_shipped_pipeline_takes_the_fastest_that_meets_the_limits(options, place):
    asked = replace(options, target="openvino", pipeline=None, shapes=("1x128",), out=place / "chosen")
    made = make_plan(asked)
    _, done = run(made, progress=Silent())

    tried = {each.pipeline for each in done.candidates}
    assert tried == {"openvino-int8", "openvino-weights", "openvino-bf16", "openvino-float"}
    assert ("openvino-bf16" in made.left_out) == ("BF16" not in done.environment.device["capabilities"])
    (chosen,) = [each for each in done.candidates if each.chosen]
    meeting = [each for each in done.candidates if each.meets_gates and each.tuning]
    if meeting:
        fastest = min(meeting, key=lambda each: each.tuning.latency[0].p50_ms)
        assert chosen.tuning.latency[0].p50_ms == fastest.tuning.latency[0].p50_ms
    assert done.measurements[-1].name == chosen.pipeline
    assert done.request.runtime == chosen.tuning.runtime


@pytest.mark.slow
def test_weights_in_bf16_and_in_fp32_are_two_subjects(options, place):
    if "BF16" not in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU does not compute in BF16")
    asked = replace(options, pipeline="openvino-bf16", shapes=("1x16",), out=place / "bf16")
    _, done = run(make_plan(asked), progress=Silent())
    reference, last = done.measurements[1], done.measurements[-1]
    assert (reference.runtime["precision"], last.runtime["precision"]) == ("f32", "bf16")
    assert last.drift.max_abs > reference.drift.max_abs
