"""What a sweep's file asks for: its points, each once, and what is wrong with it in one line."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from optimize.errors import RequestError
from optimize.sweep.matrix import Matrix, points_of, read_matrix
from optimize.sweep.sweeping import refusals_of
from optimize.sweep.tasks import tasks_of

DEMO = [{"model": "demo", "head": "text-classification"}]


def points(**content):
    return points_of(Matrix(**{"models": DEMO, "pipelines": ["cpu-static"], **content}), "f.yaml")


def labels(**content):
    return [point.label for point in points(**content)]


def test_every_model_has_every_pipeline_with_every_setting():
    found = points(
        models=[{"model": "demo", "head": ["text-classification", "question-answering"]}],
        pipelines=["cpu-static", "cpu-dynamic"],
        settings={"export.lean": [True, False], "quantize_static.method": ["mse", "percentile"]},
    )
    assert len(found) == 2 * (4 + 2)
    assert len({point.id for point in found}) == len(found)
    assert {point.model for point in found} == {"demo-text-classification", "demo-question-answering"}


def test_a_setting_that_a_pipeline_lacks_makes_no_point_of_its_own():
    assert labels(pipelines=["cpu-dynamic"], settings={"export.lean": [True, False]}) == [
        "cpu-dynamic export.lean=True",
        "cpu-dynamic export.lean=False",
    ]
    both = labels(pipelines=["cpu-dynamic", "cpu-static"], settings={"quantize_static.method": ["mse", "percentile"]})
    assert both == [
        "cpu-dynamic",
        "cpu-static quantize_static.method=mse",
        "cpu-static quantize_static.method=percentile",
    ]


def test_ranges_are_taken_at_their_steps():
    found = labels(pipelines=["cpu-pruned"], settings={"prune.budget": {"low": 0.4, "high": 0.6, "step": 0.1}})
    assert found == [f"cpu-pruned prune.budget={value}" for value in (0.4, 0.5, 0.6)]


def test_a_target_without_pipelines_has_its_own_candidates():
    found = points(pipelines=[], targets=["cpu", "openvino"])
    assert {point.form.target for point in found} == {"cpu", "openvino"}
    assert "cpu-static" in [point.label for point in found]


def test_all_heads_of_the_demo():
    assert len(points(models=[{"model": "demo", "head": "all"}])) == 6


def test_limits_and_options_reach_every_point():
    (point,) = points(gates={"max_metric_drop": 0.5}, options={"tuning_examples": 64, "shapes": "1x16,1x32"})
    assert point.form.gates.max_metric_drop == 0.5
    assert (point.options.tuning_examples, point.options.shapes) == (64, ("1x16", "1x32"))


def test_a_point_is_timed_where_its_limits_are_judged():
    (point,) = points()
    assert point.options.shapes == (point.form.gates.speedup_shape,)


def test_data_that_change_make_another_point(tmp_path):
    (tmp_path / "train.jsonl").write_text("{}\n")
    models = [{"model": "demo", "head": "text-classification", "data": str(tmp_path)}]
    (before,) = points(models=models)
    (again,) = points(models=models)
    (tmp_path / "train.jsonl").write_text("{}\n{}\n")
    (after,) = points(models=models)
    assert before.id == again.id != after.id


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"models": [{"modle": "demo"}]}, "unknown name 'modle'; did you mean 'model'"),
        ({"models": [{"model": "demo", "target": "cpu"}]}, "unknown name 'target'"),
        ({"models": [{"model": "x", "head": "all"}]}, "'all' is for the demo"),
        ({"models": [*DEMO, *DEMO]}, "two are called 'demo'; give each a `name`"),
        ({"models": [{"model": "demo", "examples": "many"}]}, "models: demo: .*integer"),
        ({"pipelines": ["cpu-statik"]}, "did you mean 'cpu-static'"),
        ({"pipelines": ["fastest"]}, "fastest chooses by itself; name those that it chooses from"),
        ({"targets": ["cpuu"]}, "did you mean 'cpu'"),
        ({"targets": ["openvino"]}, "none of the pipelines is for openvino"),
        ({"settings": {"prune.budget": [0.5]}}, "no pipeline has 'prune'"),
        ({"settings": {"exportt.lean": [True]}}, "did you mean 'export'"),
        ({"settings": {"export.lean": []}}, "has no value; give one"),
        ({"settings": {"export.lena": [True]}}, "did you mean 'lean'"),
        ({"settings": {"quantize_static.percentile": {"low": 99, "high": 98}}}, "low is not below high"),
        ({"settings": {"quantize_static.percentile": {"low": 98, "high": 99}}}, "without a step takes a search"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(content, said):
    with pytest.raises(RequestError, match=said) as refusal:
        points(**content)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "a sweep is a mapping"),
        ("pipelines: [cpu-static]", "models: field required"),
        ("models: [{model: demo}]\nmodel: demo", "did you mean 'models'"),
        ("models: [{model: demo}]\nsettings: {gates.min_agreement: 0.9}", "give limits under `gates`"),
        ("models: [{model: demo}]\nsettings: {budget: 0.9}", "budget is not stage.parameter"),
        ("models: [{model: demo}]\nsearch: {trials: 0}", "trials: input should be greater"),
    ],
)
def test_a_file_that_is_no_sweep_is_refused(text, said, tmp_path):
    file = tmp_path / "f.yaml"
    file.write_text(text)
    with pytest.raises(RequestError, match=said):
        read_matrix(file)


def test_a_file_that_is_not_there_is_refused():
    with pytest.raises(RequestError, match=r"cannot be read \(No such file"):
        read_matrix(Path("nowhere.yaml"))


def test_shared_stages_are_one_task():
    found = points(
        models=[{"model": "demo", "head": "all"}], pipelines=["cpu-static", "cpu-dynamic", "cpu-fused", "openvino-int8"]
    )
    tasks = tasks_of(found)
    names = [task.name.partition(": ")[2] for task in tasks if task.kind == "stage"]
    assert names.count("export") == 6 * 2  # lean or not, across targets
    assert len({task.id for task in tasks}) == len(tasks)
    seen = set()
    for task in tasks:
        assert set(task.needs) | set(task.leaves.values()) <= seen, "each comes after what it needs"
        seen.add(task.id)


def test_settings_that_do_not_go_together_are_kept_with_the_reason():
    found = points(pipelines=["cpu-fused"], settings={"export.lean": [False, True]})
    refused, _ = refusals_of(found, None)
    assert list(refused) == [found[1].id]
    assert "'fuse' cannot come after 'export', whose result is lean" in refused[found[1].id]


def test_what_cannot_be_carried_out_is_kept_with_the_reason():
    found = points(models=[{"model": "demo", "head": ["fill-mask"]}], pipelines=["cpu-static", "cuda"], gates={})
    refused, heads = refusals_of(found, None)
    (reason,) = refused.values()
    assert "onnxruntime-gpu" in reason or "CUDA" in reason or "GPU" in reason
    assert heads["demo"].name == "fill-mask"


def test_a_thousand_points_are_planned_in_seconds():
    """Some 2 s on the machine that this was written on; a test that asserted so would fail on a busy one."""
    found = points(
        pipelines=["cpu-static", "cpu-pruned"],
        settings={
            "quantize_static.percentile": {"low": 99.0, "high": 99.999, "step": 0.001},
            "export.lean": [True, False],
        },
    )
    begun = time.perf_counter()
    refused, _ = refusals_of(found[:1000], None)
    assert refused == {}
    assert time.perf_counter() - begun < 60.0
