"""Whole runs on the CUDA target without a GPU: built, judged by answers alone, to be certified elsewhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from doubles import Silent

from optimize import manifest
from optimize.certifying import certify
from optimize.errors import RequestError, UnavailableError
from optimize.planning import Options, make_plan
from optimize.publishing.publish import publish
from optimize.running import run
from optimize.runtimes import nvidia

HEAD = "text-classification"
pytestmark = pytest.mark.skipif(nvidia.find_driver().error is None, reason="this machine has an NVIDIA GPU")


@pytest.fixture(scope="module")
def options(tmp_path_factory, checkpoint, data_folder) -> Options:
    place = tmp_path_factory.mktemp("cuda")
    return Options(
        target="cuda",
        model=str(checkpoint(HEAD)),
        data=str(data_folder(HEAD)),
        examples=40,
        calibration_examples=16,
        tuning_examples=24,
        threads=1,
        out=place / "runs",
        cache=place / "cache",
        build_only=True,
    )


@pytest.fixture(scope="module")
def finished(options) -> tuple[Path, manifest.Manifest]:
    return run(make_plan(options), progress=Silent())


def test_answers_are_judged_and_times_are_not(finished):
    _, found = finished
    reference, result = found.measurements
    assert (reference.name, result.name) == ("pytorch-fp32", "convert_fp16")
    assert reference.runtime["device"] == "cpu"
    assert result.runtime["provider"] == "cpu"
    assert result.metric.examples == 40
    assert 0 < result.drift.max_abs < 1e-2  # FP16 moves the logits, and not by much
    assert max(result.drift.padding_max_abs, result.drift.batch_max_abs) < 1e-2
    assert result.latency == []
    assert result.not_measured["latency"].startswith("no CUDA device: ")
    outcomes = {each.name: each.outcome for each in found.verdict.checks}
    assert outcomes.pop("min_speedup") == "unverified"
    assert {outcomes.pop("enough_examples"), outcomes.pop("better_than_constant", "unverified")} == {"unverified"}
    assert set(outcomes.values()) == {"passed"}
    assert found.verdict.outcome == "unverified"


def test_the_request_is_the_targets_own_so_that_it_can_be_certified(finished):
    assert finished[1].request.runtime["provider"] == "cuda"
    assert finished[1].environment.device == {"device": "CPU", "provider": "cpu, for numerics only"}


def test_the_page_says_what_was_not_done_and_where_to_do_it(finished):
    page = (finished[0] / "report.md").read_text(encoding="utf-8")
    assert "outputs alone" in page
    assert "not timed: no CUDA device" in page
    assert "Certify the run with `optimize certify`" in page
    assert "## Latency" not in page


def test_without_a_limit_on_speed_it_is_still_not_verified(options, tmp_path):
    stages = "stages: [{export: {readout_slice: false}}, fuse, convert_fp16]"
    (tmp_path / "mine.yaml").write_text(f"target: cuda\n{stages}\ngates: {{min_agreement: 0.5}}\n", encoding="utf-8")
    plan = make_plan(replace(options, pipeline=str(tmp_path / "mine.yaml"), out=tmp_path))
    verdict = run(plan, progress=Silent())[1].verdict
    assert (verdict.checks[0].name, verdict.checks[0].outcome) == ("min_agreement", "passed")
    assert verdict.outcome == "unverified"


def test_a_model_that_answers_worse_fails_even_unmeasured(options, tmp_path):
    stages = "stages: [{export: {readout_slice: false}}, fuse, convert_fp16]"
    (tmp_path / "mine.yaml").write_text(f"target: cuda\n{stages}\ngates: {{max_size_ratio: 0.1}}\n", encoding="utf-8")
    plan = make_plan(replace(options, pipeline=str(tmp_path / "mine.yaml"), out=tmp_path))
    assert run(plan, progress=Silent())[1].verdict.outcome == "failed"


def test_it_is_not_certified_without_a_gpu(finished, options):
    with pytest.raises(UnavailableError, match="no CUDA device"):
        certify(finished[0], model=None, data=None, cache=options.cache, progress=Silent())


def test_it_is_not_published(finished, tmp_path):
    with pytest.raises(RequestError, match="unverified"):
        publish(finished[0], str(tmp_path / "published"))


def test_the_command_ends_with_exit_code_4(options, optimize, capsys):
    words = ["--model", options.model, "--data", options.data, "--examples", "20", "--calibration-examples", "16"]
    words += ["--tuning-examples", "24", "--threads", "1", "--out", str(options.out), "--cache", str(options.cache)]
    assert optimize("run", "--target", "cuda", "--build-only", *words) == 4
    assert "unverified min_speedup: no CUDA device" in capsys.readouterr().out


def test_int8_for_tensorrt_is_built_without_it(options):
    plan = make_plan(replace(options, pipeline="cuda-int8"))
    folder, found = run(plan, progress=Silent())
    result = found.measurements[-1]
    assert set(result.size.by_dtype) >= {"int8", "float16"}
    assert result.drift.agreement >= 0.8
    assert (folder / "model" / "model.onnx").is_file()
