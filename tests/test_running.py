"""Runs from end to end on small checkpoints: what is written, what is redone, what is refused, what a kill leaves."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from doubles import FEW, LOOSE, Heard, untimed_engines
from tiers import slow_but

import optimize
from optimize import examples
from optimize.artifact import Artifact, seal
from optimize.certifying import certify
from optimize.data.splits import load_splits
from optimize.errors import RequestError
from optimize.heads import HEADS
from optimize.interfaces import Context, Facts, Params, Stage
from optimize.manifest import Manifest, read
from optimize.measure import subjects
from optimize.measure.latency import EngineTimes
from optimize.planning import Options, make_plan
from optimize.publishing.publish import publish
from optimize.report.html.evidence import read_evidence
from optimize.report.html.page import render_html
from optimize.report.page import render
from optimize.report.pictures.draw import draw
from optimize.running import run
from optimize.scores import read_scores
from optimize.stages import STAGES

HEAD = "question-answering"  # its few training steps are enough to lose something by a broken model
EACH_HEAD = slow_but(HEAD, "fill-mask")
TIMED = (HEAD,)  # a process for each engine takes seconds
LENIENT = "{max_metric_drop: 0.1, min_agreement: 0.8, max_size_ratio: 0.5}"


@dataclass(frozen=True)
class Finished:
    options: Options
    folder: Path
    manifest: Manifest


def pipeline(folder: Path, stages: str, gates: str) -> Path:
    path = folder / "custom.yaml"
    path.write_text(f"target: cpu\nstages: {stages}\ngates: {gates}\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def warm_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def request_of(checkpoint, data_folder, warm_cache, tmp_path) -> Callable[..., Options]:
    """Options of a small request; its stages are cached for the whole module."""

    def make(head: str = HEAD, **changes) -> Options:
        options = Options(model=str(checkpoint(head)), data=str(data_folder(head)), shapes=("1x16",), threads=1)
        return replace(options, **{**FEW, "examples": 60, "out": tmp_path / "runs", "cache": warm_cache, **changes})

    return make


@pytest.fixture(scope="module")
def finished(checkpoint, data_folder, warm_cache, tmp_path_factory, few_runs) -> Callable[[str], Finished]:
    """A head's run, made once; the heads of `TIMED` are timed, with few runs."""

    @cache
    def make(head: str) -> Finished:
        options = Options(
            model=str(checkpoint(head)),
            data=str(data_folder(head)),
            examples=60,
            shapes=("1x128", "data"),
            threads=1,
            out=tmp_path_factory.mktemp("runs"),
            cache=warm_cache,
            settings=LOOSE,
            **FEW,
        )
        with pytest.MonkeyPatch.context() as patch:
            if head not in TIMED:
                patch.setattr(subjects, "measure_latency", untimed_engines)
            folder, manifest = run(make_plan(options), progress=Heard())
        return Finished(options, folder, manifest)

    return make


@pytest.fixture
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the timing, for tests of what does not depend on it."""
    monkeypatch.setattr(subjects, "measure_latency", untimed_engines)


def command(options: Options, *flags: str) -> list[str]:
    """The words after `optimize` that ask for the same."""
    words = ["run", "--model", options.model, "--data", options.data, "--shapes", "1x16", "--threads", "1"]
    for name in ("examples", "calibration_examples", "tuning_examples", "out", "cache"):
        words += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    return [*words, *(["--pipeline", options.pipeline] if options.pipeline else []), *flags]


def run_folder(out: Path) -> Path:
    (folder,) = out.iterdir()
    return folder


@pytest.mark.parametrize("head", EACH_HEAD)
def test_a_run_folder_has_a_telling_name_and_holds_everything(head, finished):
    done = finished(head)

    assert re.fullmatch(rf"\d{{8}}T\d{{6}}Z-cpu-{head}-{done.manifest.id}", done.folder.name)
    names = {"examples.jsonl.gz", "manifest.json", "model", "report.html", "report.md", "scores.npz", "sensitivity.png"}
    names |= {"latency.npz", "overview.png"} if head in TIMED else set()  # accuracy against latency
    assert {path.name for path in done.folder.iterdir()} == names
    assert list(done.options.out.iterdir()) == [done.folder]


@pytest.mark.parametrize("head", EACH_HEAD)
def test_manifest_and_report_on_disk_are_what_the_run_returned(head, finished):
    done = finished(head)

    assert read(done.folder) == done.manifest
    assert (done.folder / "report.md").read_text(encoding="utf-8") == render(done.manifest, draw(done.manifest))


@pytest.mark.parametrize("head", EACH_HEAD)
def test_the_page_of_a_run_shows_the_evidence_beside_it(head, finished):
    done = finished(head)
    metric = done.manifest.measurements[-1].metric
    evidence = read_evidence(done.manifest, done.folder)

    assert (done.folder / "report.html").read_text(encoding="utf-8") == render_html(done.manifest, evidence)
    assert len(evidence.examples) == metric.examples
    timed = {(each.name, at.shape): at for each in done.manifest.measurements for at in each.latency}
    assert evidence.runs.keys() == timed.keys()
    for key, at in timed.items():
        assert len(evidence.runs[key]) == at.runs
        assert np.median(evidence.runs[key]) * 1e3 == pytest.approx(at.p50_ms, rel=1e-5)


def test_no_text_of_the_data_is_kept_where_none_is_wanted(request_of, silent, monkeypatch, data_folder):
    monkeypatch.setattr(subjects, "measure_latency", untimed_engines)
    options = request_of(no_texts=True, pipeline="cpu-dynamic")
    folder, result = run(make_plan(options), progress=silent)

    kept = examples.read(folder)
    assert len(kept) == result.measurements[-1].metric.examples
    assert {(len(each.texts), each.gold, each.result.answer) for each in kept} == {(0, None, None)}
    rows = [json.loads(line) for line in (data_folder(HEAD) / "validation.jsonl").read_text("utf-8").splitlines()]
    written = "".join(path.read_text("utf-8") for path in folder.iterdir() if path.suffix in (".md", ".html", ".json"))
    assert not [row["question"] for row in rows if row["question"] in written]
    assert result.request.no_texts


@pytest.mark.parametrize("head", EACH_HEAD)
def test_every_reference_and_every_stage_is_measured_by_its_digest(head, finished):
    done = finished(head)
    first, reference, *stages = done.manifest.measurements

    assert [first.name, reference.name] == ["pytorch-fp32", "cpu-fp32"]
    assert [each.name for each in stages] == ["export", "quantize_static"]
    assert first.artifact_digest == done.manifest.source.digest
    assert [each.artifact_digest for each in stages] == [each.artifact.digest for each in done.manifest.stages]
    assert seal(done.folder / "model", "onnx").digest == stages[-1].artifact_digest


@pytest.mark.parametrize("head", EACH_HEAD)
def test_sizes_are_those_of_the_files(head, finished):
    done = finished(head)
    first, *_, last = done.manifest.measurements

    assert last.size.bytes == (done.folder / "model" / "model.onnx").stat().st_size
    assert last.size.ratio == pytest.approx(last.size.bytes / first.size.bytes)
    assert last.size.ratio < 0.5 < first.size.ratio == 1.0


@pytest.mark.parametrize("head", EACH_HEAD)
def test_scores_are_compared_with_the_reference_on_the_same_examples(head, finished):
    first, _, export, last = finished(head).manifest.measurements

    assert export.metric.drop == pytest.approx(0.0, abs=1e-3)
    assert last.metric.drop == pytest.approx(first.metric.value - last.metric.value)
    assert first.metric.name == HEADS[head].metric
    assert {each.metric.reference for each in (first, export, last)} == {first.metric.value}
    assert first.drift.agreement == 1.0


@pytest.mark.parametrize("head", EACH_HEAD)
def test_every_distinct_model_keeps_its_score_of_each_example(head, finished):
    done = finished(head)

    with np.load(done.folder / "scores.npz") as kept:
        counts = {name.split("/")[0]: len(kept[name]) for name in kept if name.endswith("/statistics")}

    digests = {each.name: each.artifact_digest for each in done.manifest.measurements}
    assert {digests[name] for name in counts} == set(digests.values())
    assert set(counts.values()) == {done.manifest.measurements[0].metric.examples}


@pytest.mark.parametrize("head", EACH_HEAD)
def test_what_is_kept_of_a_score_gives_the_metric_and_the_decisions_again(head, finished):
    done = finished(head)
    last = done.manifest.measurements[-1]

    kept = read_scores(done.folder)[last.name]

    assert HEADS[head].aggregates[last.metric.name](kept.statistics) == pytest.approx(last.metric.value)
    assert kept.ordinal == (last.metric.name == "spearman")
    assert len(kept.decisions) == (last.metric.examples if kept.ordinal else last.drift.decisions)


@pytest.mark.parametrize("head", TIMED)
def test_ratios_of_latency_are_over_both_references(head, finished):
    first, reference, _, last = finished(head).manifest.measurements

    assert [each.shape for each in last.latency] == ["1x128", "data"]
    assert set(last.latency[0].speedup) == {"pytorch-fp32", "cpu-fp32"}
    assert last.latency[0].speedup["pytorch-fp32"] == pytest.approx(first.latency[0].p50_ms / last.latency[0].p50_ms)
    assert first.latency[0].speedup == {"pytorch-fp32": 1.0}
    assert reference.latency[0].speedup["cpu-fp32"] == 1.0


@pytest.mark.parametrize("head", EACH_HEAD)
def test_the_splits_of_the_data_are_on_record(head, finished, tmp_path):
    done = finished(head)
    plan = make_plan(done.options)
    config = json.loads((done.folder / "model" / "config.json").read_text(encoding="utf-8"))

    again = load_splits(plan.wanted, plan.head, config)

    assert {name: (split.count, split.digest) for name, split in done.manifest.data.items()} == {
        name: (split.count, split.digest) for name, split in again.records.items()
    }
    assert done.manifest.data["certification"].count == 60


def test_a_second_run_redoes_no_stage_and_says_so(request_of):
    heard = Heard()
    _, first = run(make_plan(request_of(build_only=True)), progress=Heard())
    _, second = run(make_plan(request_of(build_only=True)), progress=heard)

    assert [record.cached for record in second.stages] == [True, True]
    assert [record.key for record in second.stages] == [record.key for record in first.stages]
    assert [record.artifact for record in second.stages] == [record.artifact for record in first.stages]
    assert second.id != first.id
    assert "nothing to redo: every stage is in the cache" in heard.lines
    assert "stage export: cached" in heard.lines


@pytest.mark.parametrize(
    ("change", "cached"),
    [
        ({"examples": 30}, [True, True]),
        pytest.param({"shapes": ("1x8",)}, [True, True], marks=pytest.mark.slow),
        ({"calibration_examples": 64}, [False, False]),
        pytest.param({"seed": 1}, [False, False], marks=pytest.mark.slow),
        ({"max_tokens": 64}, [False, False]),
    ],
)
def test_a_change_of_the_request_redoes_what_depends_on_it(change, cached, request_of):
    run(make_plan(request_of(build_only=True)), progress=Heard())

    _, changed = run(make_plan(request_of(build_only=True, **change)), progress=Heard())

    assert [record.cached for record in changed.stages] == cached


def test_a_changed_parameter_redoes_its_stage_alone(request_of, tmp_path):
    run(make_plan(request_of(build_only=True)), progress=Heard())
    custom = pipeline(tmp_path, "[export: {lean: true}, quantize_dynamic: {embedding: false}]", "{}")
    heard = Heard()

    _, changed = run(make_plan(request_of(build_only=True, pipeline=str(custom))), progress=heard)

    assert [record.cached for record in changed.stages] == [True, False]
    assert changed.stages[1].params["embedding"] is False
    assert "nothing to redo: every stage is in the cache" not in heard.lines


def test_a_stage_that_comes_twice_is_numbered(request_of, tmp_path, monkeypatch, untimed):
    monkeypatch.setitem(STAGES, "shuffle", SHUFFLE)
    custom = pipeline(tmp_path, "[export, shuffle, shuffle]", "{}")

    _, manifest = run(make_plan(request_of(pipeline=str(custom))), progress=Heard())

    assert [each.name for each in manifest.measurements[2:]] == ["export", "shuffle", "shuffle#2"]


def test_a_pruned_model_is_measured_at_every_step_and_its_checkpoint_runs_again(request_of, tmp_path, untimed):
    custom = pipeline(tmp_path, "[prune: {budget: 0.6}, export, quantize_dynamic]", "{}")
    plan = make_plan(request_of(pipeline=str(custom)))

    _, manifest = run(plan, progress=Heard())

    names = [each.name for each in manifest.measurements]
    assert names == ["pytorch-fp32", "cpu-fp32", "prune", "export", "quantize_dynamic"]
    values = {each.name: each.metric.value for each in manifest.measurements}
    assert values["prune"] == values["export"]
    sizes = {each.name: each.size.bytes for each in manifest.measurements}
    assert sizes["quantize_dynamic"] < sizes["prune"] < sizes["pytorch-fp32"]
    pruned = plan.cache / manifest.stages[0].key / "artifact"
    _, again = run(make_plan(request_of(model=str(pruned), pipeline=str(custom))), progress=Heard())
    assert again.measurements[0].metric.value == values["prune"]
    assert again.stages[0].facts["parameters_before"] == manifest.stages[0].facts["parameters"]


@pytest.fixture
def few_words(data_folder, tmp_path) -> Path:
    """A corpus of the first texts of the data."""
    lines = (data_folder(HEAD) / "validation.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(lines[:40]), encoding="utf-8")
    return path


def test_a_model_with_a_smaller_vocabulary_is_judged_by_its_own_tokenizer_and_published_with_it(
    request_of, few_words, tmp_path, untimed
):
    path = pipeline(tmp_path, "[export, quantize_dynamic]", "{max_size_ratio: 0.5}")

    folder, manifest = run(make_plan(request_of(pipeline=str(path), vocabulary=str(few_words))), progress=Heard())

    reference, _, pruned, exported, last = manifest.measurements
    assert (pruned.name, last.name) == ("prune_vocabulary", "quantize_dynamic")
    assert pruned.metric.reference == reference.metric.value
    assert exported.metric.value == pruned.metric.value
    assert 0 < pruned.drift.left_out < pruned.metric.examples
    assert pruned.drift.compared + pruned.drift.left_out == pruned.metric.examples
    assert f"prune_vocabulary, drift of {pruned.drift.left_out:,} examples" in render(manifest)
    few_words.unlink()
    path.unlink()
    _, checked = certify(folder, model=None, data=None, cache=tmp_path / "fresh", progress=Heard())
    again = checked.measurements[-1]
    assert (again.metric, again.drift.left_out) == (last.metric, pruned.drift.left_out)
    assert checked.request == manifest.request
    publish(folder, str(tmp_path / "published"))
    vocabulary = json.loads((tmp_path / "published" / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    assert len(vocabulary) == manifest.stages[0].facts["vocabulary"]
    card = (tmp_path / "published" / "README.md").read_text(encoding="utf-8")
    assert f"Its tokenizer has {len(vocabulary):,} of" in card
    assert f"--vocabulary {few_words.name}" in card


def test_models_are_timed_on_tokens_that_the_smallest_vocabulary_has(request_of, few_words, tmp_path, monkeypatch):
    seen = []

    def watch(engines, *_, workload, **__):
        seen.append(workload)
        return {engine.name: EngineTimes() for engine in engines}

    monkeypatch.setattr(subjects, "measure_latency", watch)
    asked = request_of(pipeline=str(pipeline(tmp_path, "[export]", "{}")), vocabulary=str(few_words))

    _, manifest = run(make_plan(asked), progress=Heard())

    (workload,) = seen
    assert workload.vocab_size == manifest.stages[0].facts["vocabulary"] < manifest.source.geometry["vocab_size"]
    assert max(int(each.inputs["input_ids"].max()) for each in workload.features) < workload.vocab_size


def test_a_corpus_is_known_by_what_it_holds_and_not_by_where_it_lies(request_of, few_words, tmp_path):
    def build(corpus: Path) -> list[bool]:
        asked = request_of(vocabulary=str(corpus), build_only=True, pipeline=str(path))
        return [record.cached for record in run(make_plan(asked), progress=Heard())[1].stages]

    path = pipeline(tmp_path, "[export]", "{}")
    build(few_words)
    moved = few_words.rename(tmp_path / "moved.jsonl")

    assert build(moved) == [True, True]
    moved.write_text(moved.read_text(encoding="utf-8") + '"zebra"\n', encoding="utf-8")
    assert build(moved)[0] is False


def shuffle(source: Artifact, out: Path, params: Params, context: Context) -> Facts:
    """Permute the values within each matrix of weights: a model that loads, runs, and knows nothing."""
    import onnx

    model = onnx.load(source.path / "model.onnx")
    order = np.random.default_rng(context.seed)
    matrices = [tensor for tensor in model.graph.initializer if len(tensor.dims) == 2]
    for tensor in matrices:
        values = onnx.numpy_helper.to_array(tensor)
        mixed = order.permutation(values.ravel()).reshape(values.shape)
        tensor.CopyFrom(onnx.numpy_helper.from_array(mixed, tensor.name))
    onnx.save(model, out / "model.onnx")
    return {"shuffled": len(matrices)}


SHUFFLE = Stage(shuffle, Params, takes="onnx", gives="onnx", needs=("onnx",), summary="break the model")


@pytest.mark.parametrize(
    ("stages", "code", "outcome"),
    [("[export, quantize_dynamic]", 0, "passed"), ("[export, shuffle, quantize_dynamic]", 1, "failed")],
)
def test_a_broken_model_fails_the_limits_that_a_sound_one_meets(
    stages, code, outcome, request_of, optimize, tmp_path, monkeypatch, untimed
):
    monkeypatch.setitem(STAGES, "shuffle", SHUFFLE)
    options = request_of(pipeline=str(pipeline(tmp_path, stages, LENIENT)))

    found = optimize(*command(options))

    verdict = read(run_folder(options.out)).verdict
    outcomes = {check.name: check.outcome for check in verdict.checks}
    assert (found, verdict.outcome) == (code, outcome)
    assert outcomes == {"max_metric_drop": outcome, "min_agreement": outcome, "max_size_ratio": "passed"}


def test_a_model_that_was_only_built_is_unverified_until_it_is_checked(
    request_of, optimize, tmp_path, monkeypatch, untimed
):
    options = request_of(pipeline=str(pipeline(tmp_path, "[export, quantize_dynamic]", LENIENT)))
    assert optimize(*command(options, "--build-only")) == 4
    folder = run_folder(options.out)
    built = read(folder)
    monkeypatch.setitem(STAGES, "quantize_dynamic", replace(STAGES["quantize_dynamic"], run=None))

    code = optimize("check", str(folder), "--cache", str(tmp_path / "fresh cache"))

    checked = read(folder)
    assert (built.verdict.outcome, built.measurements) == ("unverified", [])
    assert (code, checked.verdict.outcome) == (0, "passed")
    assert (checked.id, checked.stages, checked.request) == (built.id, built.stages, built.request)
    assert [each.name for each in checked.measurements] == ["pytorch-fp32", "cpu-fp32", "quantize_dynamic"]
    assert (folder / "report.md").read_text(encoding="utf-8") == render(checked, draw(checked))


def test_check_needs_neither_the_pipelines_file_nor_the_old_places(request_of, tmp_path, untimed):
    path = pipeline(tmp_path, "[export, quantize_dynamic]", LENIENT)
    options = request_of(pipeline=str(path), build_only=True)
    folder, _ = run(make_plan(options), progress=Heard())
    moved = tmp_path / "moved"
    moved.symlink_to(options.model)
    path.unlink()

    _, checked = certify(folder, model=str(moved), data=None, cache=options.cache, progress=Heard())

    assert checked.verdict.outcome == "passed"
    assert checked.request.model == options.model


@pytest.fixture
def built(request_of) -> Finished:
    options = request_of(build_only=True)
    return Finished(options, *run(make_plan(options), progress=Heard()))


def test_check_refuses_a_model_that_was_tampered_with(built, untimed):
    graph = built.folder / "model" / "model.onnx"
    graph.write_bytes(graph.read_bytes() + b"\0")
    before = (built.folder / "manifest.json").read_bytes()

    with pytest.raises(RequestError, match="model: is not what the manifest says"):
        certify(built.folder, model=None, data=None, cache=built.options.cache, progress=Heard())
    assert (built.folder / "manifest.json").read_bytes() == before


def test_check_says_so_where_the_words_of_a_run_are_of_another_version(built, untimed):
    path = built.folder / "manifest.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["request"]["stages"][-1] = {"quantize_static": {"wide_sums": "auto"}}
    path.write_text(json.dumps(content), encoding="utf-8")

    with pytest.raises(RequestError, match=r"written by another version .*unknown name 'wide_sums'.*; run"):
        certify(built.folder, model=None, data=None, cache=built.options.cache, progress=Heard())


def test_check_refuses_another_checkpoint(built, untimed, tmp_path):
    from safetensors.numpy import load_file, save_file

    other = tmp_path / "other"
    other.mkdir()
    for path in Path(built.options.model).iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    weights = load_file(other / "model.safetensors")
    weights["qa_outputs.bias"] = weights["qa_outputs.bias"] + 1.0
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(RequestError, match="checkpoint is not the one of the manifest"):
        certify(built.folder, model=str(other), data=None, cache=built.options.cache, progress=Heard())


def test_check_refuses_other_data(built, untimed, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for path in Path(built.options.data).iterdir():
        (other / path.name).write_text("".join(path.read_text().splitlines(keepends=True)[1:]), encoding="utf-8")

    with pytest.raises(RequestError, match="is not the one of the manifest; give the data with --data"):
        certify(built.folder, model=None, data=str(other), cache=built.options.cache, progress=Heard())
    assert read(built.folder).verdict.outcome == "unverified"


def test_check_refuses_a_folder_that_is_no_run(tmp_path, optimize, capsys):
    code = optimize("check", str(tmp_path))

    assert code == 2
    assert "no readable manifest.json" in capsys.readouterr().err


def start(options: Options, *flags: str) -> subprocess.Popen[str]:
    """A real `python -m optimize run ...` in a process group of its own, as a terminal would start it."""
    words = [sys.executable, "-m", "optimize", *command(options, "--build-only", *flags)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(words, **pipes, process_group=0, cwd=Path(optimize.__file__).parents[1])


def entries(root: Path) -> list[Path]:
    return [path for path in root.glob("*") if re.fullmatch("[0-9a-f]{64}", path.name)]


def wait_for_a_stage(process: subprocess.Popen[str], root: Path) -> None:
    """Wait until the checkpoint is in the cache and a stage is being written."""
    deadline = time.monotonic() + 120
    while not (entries(root) and list(root.glob(".partial-*/*/artifact"))):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def assert_nothing_is_half_written(options: Options) -> None:
    for entry in entries(options.cache):
        stated = json.loads((entry / "entry.json").read_text(encoding="utf-8"))
        assert seal(entry / "artifact", stated["kind"]).digest == stated["digest"]
    assert not list(options.out.glob("**/manifest.json"))


def test_a_killed_run_leaves_nothing_half_written_and_the_next_one_succeeds(request_of, tmp_path):
    options = request_of(cache=tmp_path / "cache", pipeline="cpu-dynamic", build_only=True)
    process = start(options)
    wait_for_a_stage(process, options.cache)

    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()

    assert process.returncode == -signal.SIGKILL
    assert_nothing_is_half_written(options)
    _, manifest = run(make_plan(options), progress=Heard())
    assert len(manifest.stages) == 2
    assert not list(options.cache.glob(".partial-*"))


def test_ctrl_c_ends_a_run_with_one_line_and_nothing_half_written(request_of, tmp_path):
    options = request_of(cache=tmp_path / "cache", pipeline="cpu-dynamic", build_only=True)
    process = start(options)
    wait_for_a_stage(process, options.cache)

    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)

    assert process.returncode == 130
    assert err.splitlines()[-1] == "optimize: interrupted; what is finished is kept"
    assert "Traceback" not in err
    assert out == ""
    assert_nothing_is_half_written(options)
    assert not list(options.cache.glob(".partial-*"))
    assert run(make_plan(options), progress=Heard())[0].is_dir()


@pytest.mark.slow
def test_two_runs_at_once_share_a_cache_and_agree(request_of, tmp_path):
    options = request_of(cache=tmp_path / "cache", pipeline="cpu-dynamic")
    processes = [start(options, "--json"), start(options, "--json")]

    answers = [(process.communicate(timeout=300), process.returncode) for process in processes]

    assert [code for _, code in answers] == [4, 4], answers
    first, second = (Manifest.model_validate_json(out) for (out, _), _ in answers)
    assert [record.artifact for record in first.stages] == [record.artifact for record in second.stages]
    assert first.source.digest == second.source.digest
    assert len(list(options.out.glob("*/manifest.json"))) == 2
    assert not list(options.cache.glob(".partial-*"))
