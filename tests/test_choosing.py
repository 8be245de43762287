"""Pipeline `auto`: what is chosen, by what data, and what a run of it leaves behind."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from doubles import Heard, few_options
from libraries import needs

from optimize import building, config
from optimize.artifact import Artifact, seal
from optimize.building import load
from optimize.certifying import certify
from optimize.choosing import Standing, choose
from optimize.data.tokenized import encode
from optimize.errors import DataError, StageError
from optimize.interfaces import Context, Facts, Params, Stage
from optimize.manifest import Check, Latency, Manifest, read
from optimize.measure import subjects
from optimize.measure.latency import EngineTimes
from optimize.planning import AUTO, Options, make_plan
from optimize.publishing.publish import publish
from optimize.report.page import render
from optimize.running import run
from optimize.stages import STAGES

HEAD = "question-answering"  # its few training steps are enough to lose something by a broken model
GATES = "{max_metric_drop: 0.1, min_agreement: 0.8, min_speedup: 1.5, speedup_shape: 1x16, max_size_ratio: 0.5}"
PIPELINES = {
    "cpu": "[export]",
    "whole": "[export]",
    "broken": "[export, shuffle, quantize_dynamic]",
    "slow": "[export, quantize_dynamic: {embedding: false}]",
    "good": "[export, quantize_dynamic]",
    "twin": "[export, quantize_dynamic]",
    "raising": "[export, fail]",
    "falling": "[export, fail]",
    "lacking": "[export, absent]",
}
ALL = ("whole", "broken", "slow", "good", "raising", "lacking")
MILLISECONDS = {"pytorch-fp32": 8.0, "cpu-fp32": 4.0, "openvino-fp32": 1.5, "broken": 1.0, "good": 2.0, "slow": 3.0}


def shuffle(source: Artifact, out: Path, params: Params, context: Context) -> Facts:
    """Permute the values within each matrix of weights."""
    import onnx

    model = onnx.load(source.path / "model.onnx")
    order = np.random.default_rng(context.seed)
    for tensor in [tensor for tensor in model.graph.initializer if len(tensor.dims) == 2]:
        values = onnx.numpy_helper.to_array(tensor)
        mixed = order.permutation(values.ravel()).reshape(values.shape)
        tensor.CopyFrom(onnx.numpy_helper.from_array(mixed, tensor.name))
    onnx.save(model, out / "model.onnx")
    return {}


def fail(source: Artifact, out: Path, params: Params, context: Context) -> Facts:
    raise StageError("fail: no fallback met\n the budget; raise max_float_share")


def timed(engines, shapes, **_) -> dict[str, EngineTimes]:
    """Latency as `MILLISECONDS` says."""
    return {each.name: EngineTimes([latency(each.name, shape) for shape in shapes], 0.1, 10**6) for each in engines}


def latency(name: str, shape: str) -> Latency:
    ms = MILLISECONDS.get(name, 4.0)
    speedup = {reference: MILLISECONDS[reference] / ms for reference in ("pytorch-fp32", "cpu-fp32")}
    return Latency(shape=shape, p50_ms=ms, p90_ms=None, p99_ms=None, runs=20, speedup=speedup)


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory) -> Path:
    """A folder of pipelines, of which only the target's own has limits that can be met."""
    folder = tmp_path_factory.mktemp("pipelines")
    for name, stages in PIPELINES.items():
        write_pipeline(folder, name, stages, GATES if name == "cpu" else "{max_metric_drop: 0}")
    return folder


def write_pipeline(folder: Path, name: str, stages: str, gates: str, candidates: tuple[str, ...] = ()) -> None:
    text = f"target: cpu\nstages: {stages}\ngates: {gates}\ncandidates: [{', '.join(candidates)}]\n"
    (folder / f"{name}.yaml").write_text(text, encoding="utf-8")


def prepare(patch: pytest.MonkeyPatch, folder: Path, candidates: tuple[str, ...]) -> None:
    """Let the target's candidates be these, of that folder, with our stages and clock."""
    sound = Stage(shuffle, Params, takes="onnx", gives="onnx", needs=("onnx",), summary="")
    patch.setattr(config, "pipelines_folder", lambda: folder)
    patch.setattr(subjects, "measure_latency", timed)
    patch.setitem(STAGES, "shuffle", sound)
    patch.setitem(STAGES, "fail", replace(sound, run=fail))
    patch.setitem(STAGES, "absent", replace(sound, needs=("no-such-library",)))
    write_pipeline(folder, "cpu", PIPELINES["cpu"], GATES, candidates)


@pytest.fixture
def world(monkeypatch, pipelines) -> Callable[..., None]:
    """Sets the target's candidates."""
    return lambda *candidates: prepare(monkeypatch, pipelines, candidates)


@dataclass(frozen=True)
class Finished:
    options: Options
    folder: Path
    manifest: Manifest
    lines: list[str]


@pytest.fixture(scope="module")
def options(checkpoint, data_folder, tmp_path_factory) -> Options:
    place = tmp_path_factory.mktemp("work")
    return few_options(place, checkpoint(HEAD), data_folder(HEAD), pipeline=AUTO)


def carry_out(options: Options) -> Finished:
    heard = Heard()
    folder, manifest = run(make_plan(options), progress=heard)
    return Finished(options, folder, manifest, heard.lines)


@pytest.fixture(scope="module")
def finished(pipelines, options) -> Finished:
    with pytest.MonkeyPatch.context() as patch:
        prepare(patch, pipelines, ALL)
        return carry_out(options)


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    """The run folder, to be written to."""
    return Path(shutil.copytree(finished.folder, tmp_path / "run"))


def standing(latency_ms: float | None, *outcomes: str, drop: float | None = 0.0) -> Standing:
    checks = [Check(name=str(i), limit=1.0, value=1.0, outcome=each, reason="") for i, each in enumerate(outcomes)]
    return Standing(checks=checks, relative_drop=drop, cost=latency_ms)


def hurried(latency_ms: float, *outcomes: str, drop: float) -> Standing:
    """One whose speed-up the machine was too busy to prove."""
    speed = Check(name="min_speedup", limit=2.0, value=3.0, outcome="unverified", reason="busy")
    others = standing(latency_ms, *outcomes, drop=drop)
    return replace(others, checks=[speed, *others.checks])


@pytest.mark.parametrize(
    ("standings", "chosen"),
    [
        ([standing(3.0, "passed"), standing(2.0, "passed"), standing(1.0, "failed")], 1),
        ([standing(3.0, "passed"), standing(2.0, "unverified")], 0),
        ([standing(None, "passed"), standing(9.0, "passed")], 1),
        ([standing(math.nan, "passed"), standing(9.0, "passed")], 1),
        ([standing(2.0, "passed", drop=0.1), standing(2.0, "passed", drop=-0.1)], 1),
        ([standing(2.0, "passed"), standing(2.0, "passed")], 0),
        ([standing(3.0), standing(2.0)], 1),
    ],
)
def test_the_fastest_that_meets_all_limits_is_chosen(standings, chosen):
    assert choose(standings) == chosen


@pytest.mark.parametrize(
    ("standings", "chosen"),
    [
        ([standing(1.0, "failed", "failed"), standing(2.0, "failed", "passed")], 1),
        ([standing(1.0, "failed", "unverified"), standing(2.0, "passed", "unverified")], 1),
        ([standing(1.0, "failed", drop=0.2), standing(2.0, "failed", drop=0.1)], 1),
        ([standing(1.0, "failed", drop=None), standing(2.0, "failed", drop=0.9)], 1),
        ([standing(1.0, "failed", drop=math.nan), standing(2.0, "failed", drop=0.9)], 1),
        ([standing(2.0, "failed"), standing(1.0, "failed")], 1),
        ([standing(None, "failed"), standing(None, "failed")], 0),
    ],
)
def test_where_none_meets_all_limits_the_one_that_misses_fewest_is_chosen(standings, chosen):
    assert choose(standings) == chosen


@pytest.mark.parametrize(
    ("standings", "chosen"),
    [
        ([hurried(2.0, "passed", drop=0.0), hurried(1.0, "passed", drop=0.009)], 1),
        ([hurried(2.0, "passed", drop=0.0), hurried(1.0, "failed", drop=0.0)], 0),
        ([hurried(1.0, "passed", drop=0.0), standing(2.0, "passed", "passed")], 1),
        ([standing(1.0, "failed", drop=0.0), hurried(2.0, drop=0.1)], 1),
    ],
)
def test_where_the_machine_was_busy_the_fastest_of_those_that_meet_all_else_is_chosen(standings, chosen):
    assert choose(standings) == chosen


def test_a_run_keeps_the_fastest_candidate_that_meets_the_limits(finished):
    manifest = finished.manifest
    (chosen,) = [each for each in manifest.candidates if each.chosen]

    assert (chosen.pipeline, chosen.meets_gates, chosen.reason) == ("good", True, "the fastest that meets all limits")
    assert manifest.stages == chosen.stages
    assert manifest.request.pipeline == AUTO
    assert [list(each) for each in manifest.request.stages] == [["export"], ["quantize_dynamic"]]
    assert seal(finished.folder / "model", "onnx").digest == manifest.measurements[-1].artifact_digest
    assert manifest.verdict.outcome == "passed"
    assert f"-{AUTO}-{HEAD}-" in finished.folder.name


def test_every_candidate_is_shown_with_what_became_of_it(finished):
    reasons = {each.pipeline: each.reason for each in finished.manifest.candidates}

    assert tuple(reasons) == ALL
    assert "size ratio" in reasons["whole"]
    assert "agreement" in reasons["broken"]
    assert reasons["slow"] == "meets all limits, but takes 3.00 ms where good takes 2.00"
    assert reasons["raising"] == "fail: no fallback met the budget; raise max_float_share"
    assert "no-such-library is not installed" in reasons["lacking"]
    met = {each.pipeline for each in finished.manifest.candidates if each.meets_gates}
    assert met == {"slow", "good"}


def test_references_come_first_and_the_chosen_candidate_last(finished):
    names = [each.name for each in finished.manifest.measurements]

    assert names == ["pytorch-fp32", "cpu-fp32", "whole", "broken", "slow", "good"]
    assert [each.measurement for each in finished.manifest.candidates] == [*names[2:5], "good", None, None]


def test_all_candidates_are_shown_on_certification_data_and_the_chosen_one_is_judged(finished):
    measured = {each.name: each for each in finished.manifest.measurements}

    count = finished.manifest.data["certification"].count
    assert {each.metric.examples for each in measured.values()} == {count} == {60}
    assert measured["broken"].metric.drop > measured["good"].metric.drop
    value = next(check.value for check in finished.manifest.verdict.checks if check.name == "min_agreement")
    assert value == measured["good"].drift.agreement
    with np.load(finished.folder / "scores.npz") as kept:
        assert {name.split("/")[0] for name in kept} == set(measured)


def test_candidates_are_compared_on_tuning_data(finished):
    tuned = {each.pipeline: each.tuning for each in finished.manifest.candidates if each.tuning}

    count = finished.manifest.data["tuning"].count
    assert count != 60
    assert {each.metric.examples for each in tuned.values()} == {count}
    assert [each.latency[0].p50_ms for each in tuned.values()] == [4.0, 1.0, 3.0, 2.0]


def told(manifest: Manifest) -> list[tuple[object, ...]]:
    """What was said of candidates, without how long it took."""
    tuned = [(each, each.tuning) for each in manifest.candidates]
    return [(each.pipeline, each.chosen, each.reason, each.checks, tuning) for each, tuning in tuned]


def test_nonsense_in_the_certification_labels_does_not_change_the_choice(finished, world, tmp_path):
    world(*ALL)
    other = Path(shutil.copytree(finished.options.data, tmp_path / "data"))
    rows = [json.loads(line) for line in (other / "validation.jsonl").read_text(encoding="utf-8").splitlines()]
    for row in rows:
        row["answers"] = {"text": [row["context"][:1]], "answer_start": [0]}
    (other / "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    again = carry_out(replace(finished.options, data=str(other), out=tmp_path / "runs")).manifest

    assert told(again) == told(finished.manifest)
    assert again.data["tuning"] == finished.manifest.data["tuning"]
    assert again.measurements[0].metric.value != finished.manifest.measurements[0].metric.value


def test_a_second_run_redoes_no_stage_and_says_so(finished, world, tmp_path):
    world(*ALL)
    again = carry_out(replace(finished.options, out=tmp_path))

    assert "nothing to redo: every stage is in the cache" in again.lines
    assert "candidate raising: not built: fail: no fallback met the budget; raise max_float_share" in again.lines
    assert "chosen on tuning data: good" in again.lines


def test_where_none_meets_the_limits_the_verdict_says_so(world, options, tmp_path):
    world("whole", "broken")

    done = carry_out(replace(options, out=tmp_path)).manifest

    (chosen,) = [each for each in done.candidates if each.chosen]
    assert (chosen.meets_gates, done.verdict.outcome) == (False, "failed")
    assert chosen.reason.startswith("misses the fewest limits: ")


def test_two_candidates_that_give_one_model_are_measured_once(world, options, tmp_path):
    world("good", "twin")

    done = carry_out(replace(options, out=tmp_path)).manifest

    assert [each.reason for each in done.candidates] == ["the fastest that meets all limits", "the same model as good"]
    assert [each.name for each in done.measurements[2:]] == ["twin", "good"]
    assert done.measurements[2].metric == done.measurements[3].metric is not None


def test_a_run_whose_candidates_all_fail_names_each(world, options, tmp_path):
    world("raising", "falling")

    with pytest.raises(StageError, match=r"raising: fail: no fallback .* falling: fail: no fallback") as refused:
        carry_out(replace(options, out=tmp_path))
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_data_without_tuning_examples_are_refused(world, options, data_folder, tmp_path):
    world("good")
    data = tmp_path / "data"
    data.mkdir()
    for name in ("train", "validation"):
        lines = (data_folder(HEAD) / f"{name}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        (data / f"{name}.jsonl").write_text("".join(lines[: 1 if name == "train" else 20]), encoding="utf-8")

    with pytest.raises(DataError, match="leaves no tuning examples"):
        carry_out(replace(options, data=str(data), out=tmp_path / "runs"))


def test_check_judges_the_chosen_model_again_without_building_it(finished, world, copy, monkeypatch):
    world()
    monkeypatch.setitem(STAGES, "quantize_dynamic", replace(STAGES["quantize_dynamic"], run=None))
    old = finished.manifest

    _, checked = certify(copy, model=None, data=None, cache=finished.options.cache, progress=Heard())

    assert checked.verdict == old.verdict
    assert (checked.id, checked.request, checked.stages) == (old.id, old.request, old.stages)
    assert [each.name for each in checked.measurements] == ["pytorch-fp32", "cpu-fp32", "good"]
    assert checked.measurements[-1].metric == old.measurements[-1].metric
    assert [each.measurement for each in checked.candidates] == [None, None, None, "good", None, None]
    assert told(checked) == told(old)
    assert read(copy) == checked


def test_an_auto_run_is_published(finished, tmp_path):
    publish(finished.folder, str(tmp_path / "out"))

    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "export → quantize_dynamic" in card
    assert f"--pipeline {AUTO}" in card
    assert seal(finished.folder / "model", "onnx").digest == finished.manifest.stages[-1].artifact.digest


def test_the_manifest_on_disk_is_what_the_run_returned(finished):
    assert read(finished.folder) == finished.manifest
    assert "## Candidates" in (finished.folder / "report.md").read_text(encoding="utf-8")
    assert "## Candidates" in render(finished.manifest)


@needs("openvino")
def test_the_fastest_may_be_of_another_target(world, options, pipelines, tmp_path):
    """Its run is as one of that target: measured beside the references of both, and certified as such."""
    world()
    (pipelines / "elsewhere.yaml").write_text("target: openvino\nstages: [export, convert_openvino]\n")
    mine = tmp_path / "mine.yaml"
    limits = "{max_metric_drop: 0.1, min_speedup: 1.5, speedup_shape: 1x16}"
    mine.write_text(f"target: auto\ncandidates: [good, elsewhere]\ngates: {limits}\n", encoding="utf-8")

    folder, made = run(make_plan(replace(options, pipeline=str(mine))), progress=Heard())

    assert [each.name for each in made.measurements] == [
        "pytorch-fp32",
        "cpu-fp32",
        "openvino-fp32",
        "good",
        "elsewhere",
    ]
    assert (made.request.target, made.stages[-1].stage) == ("openvino", "convert_openvino")
    assert made.environment.device["device"] == "CPU"
    assert "--target openvino" in render(made)
    _, again = certify(folder, model=None, data=None, cache=options.cache, progress=Heard())
    assert [each.name for each in again.measurements] == ["pytorch-fp32", "openvino-fp32", "elsewhere"]


def test_texts_are_tokenized_once_for_all_candidates(world, options, monkeypatch):
    world("good", "slow")
    loaded = load(make_plan(options), Heard())
    asked = []
    monkeypatch.setattr(building, "encode", lambda head, rows, text: asked.append(rows) or encode(head, rows, text))
    contexts = [replace(loaded, plan=loaded.plan.of(each)).context for each in loaded.plan.candidates]

    assert len(contexts) == 2
    # Tuning texts were, when the head fixed its threshold.
    assert asked == [loaded.splits.calibration, loaded.splits.training]
    assert contexts[0].calibration == contexts[1].calibration
