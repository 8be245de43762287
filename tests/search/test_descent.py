"""A search on a small model: what it builds, what it keeps to, and that it goes on where it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from doubles import Heard, few_options

from optimize import building
from optimize.artifact import Artifact
from optimize.building import load
from optimize.config import Pipeline
from optimize.errors import RequestError
from optimize.gates import Gates
from optimize.manifest import Latency, Manifest, read
from optimize.measure import subjects
from optimize.measure.latency import EngineTimes
from optimize.measure.subjects import Subject
from optimize.planning import Options, make_plan
from optimize.report.page import render
from optimize.running import run
from optimize.search import descent
from optimize.search.candidates import Built, Candidates
from optimize.search.descent import near_the_fastest, try_of, with_lost

HEAD = "text-classification"
PIPELINE = """
target: cpu
candidates: [cpu-dynamic, cpu-table4]
search: {prefer: PREFER, minutes: MINUTES, probe_minutes: 0.02, budgets: [0.7, 0.5]}
gates: {max_relative_metric_drop: DROP, min_agreement: 0.05}
"""


def write(folder: Path, *, prefer: str = "latency", minutes: float = 0.5, drop: float = 0.9) -> str:
    path = folder / f"{prefer}-{minutes}-{drop}.yaml"
    text = PIPELINE.replace("PREFER", prefer).replace("MINUTES", str(minutes)).replace("DROP", str(drop))
    path.write_text(text, encoding="utf-8")
    return str(path)


def timed(engines, shapes, **_) -> dict[str, EngineTimes]:
    """Smaller models are faster, as their files have it."""
    found = {}
    for each in engines:
        ms = each.artifact.size_bytes / 1e5
        latencies = [
            Latency(shape=shape, p50_ms=ms, p90_ms=None, p99_ms=None, runs=20, speedup={"pytorch-fp32": 2.0})
            for shape in shapes
        ]
        found[each.name] = EngineTimes(latencies, 0.1, 10**6)
    return found


@pytest.fixture(scope="module")
def options(checkpoint, data_folder, tmp_path_factory) -> Options:
    place = tmp_path_factory.mktemp("search")
    quick = {"quantize_static.sensitivity": False}
    return few_options(place, checkpoint(HEAD), data_folder(HEAD), pipeline=write(place), settings=quick)


def carry_out(options: Options) -> tuple[Manifest, Path, list[str]]:
    heard = Heard()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subjects, "measure_latency", timed)
        folder, manifest = run(make_plan(options), progress=heard)
    return manifest, folder, heard.lines


@pytest.fixture(scope="module")
def finished(options) -> tuple[Manifest, Path, list[str]]:
    return carry_out(options)


def test_each_budget_begins_with_what_the_one_before_has_learnt(finished):
    manifest, _, _ = finished
    smallest = next(each for each in manifest.candidates if each.pipeline == "cpu-dynamic at 50%")
    names = [each.stage for each in smallest.stages]
    assert names[:5] == ["prune_vocabulary", "prune", "distill", "prune", "distill"]
    assert [each.params["budget"] for each in smallest.stages if each.stage == "prune"] == [0.7, round(0.5 / 0.7, 6)]


def test_the_budget_is_a_share_of_the_whole_encoder(finished):
    manifest, _, _ = finished
    smallest = next(each for each in manifest.candidates if each.pipeline == "cpu-dynamic at 50%")
    kept = 1.0
    for each in smallest.stages:
        kept *= each.facts.get("flops_kept", 1.0)
    assert kept == pytest.approx(0.5, abs=0.05)


def test_the_model_as_it_is_and_the_smallest_ones_are_quantized_in_every_way(finished):
    manifest, _, _ = finished
    names = {each.pipeline for each in manifest.candidates}
    assert names == {f"{form}{at}" for form in ("cpu-dynamic", "cpu-table4") for at in ("", " at 70%", " at 50%")}


def test_the_fastest_is_taken_and_the_manifest_has_the_tries(finished):
    manifest, folder, _ = finished
    (chosen,) = [each for each in manifest.candidates if each.chosen]
    assert "at 50%" in chosen.pipeline
    assert chosen.reason == "the fastest that meets all limits"
    assert [each.budget for each in manifest.search][:2] == [0.7, 0.5]
    assert manifest.search[0].spent_minutes < manifest.search[1].spent_minutes
    assert read(folder).search == manifest.search


def test_the_page_has_every_try(finished):
    manifest, folder, _ = finished
    assert "## Search" in render(manifest)
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "share of the encoder kept" in page
    assert "minutes learnt" in page


def test_asked_again_nothing_is_redone_and_the_same_is_tried(finished, options):
    manifest, _, _ = finished
    again, _, lines = carry_out(options)
    assert again.search == manifest.search
    assert again.stages[-1].key == manifest.stages[-1].key
    assert "nothing to redo: every stage is in the cache" in lines


def test_a_search_that_was_killed_goes_on_to_the_same_end(finished, options, tmp_path, monkeypatch):
    manifest, _, _ = finished
    fresh, count, run_stage = replace(options, cache=tmp_path / "cache", out=tmp_path / "out"), [0], building.run_stage

    def dies(*args):
        count[0] += 1
        if count[0] == 6:
            raise KeyboardInterrupt
        return run_stage(*args)

    monkeypatch.setattr(building, "run_stage", dies)
    with pytest.raises(KeyboardInterrupt):
        carry_out(fresh)
    assert not list((tmp_path / "out").glob("*"))
    again, _, _ = carry_out(fresh)
    assert sum(each.cached for each in again.candidates[-1].stages) >= 1
    assert [each.budget for each in again.search][:2] == [each.budget for each in manifest.search][:2]


def test_the_smallest_is_taken_where_size_is_preferred(options, tmp_path):
    manifest, _, _ = carry_out(replace(options, pipeline=write(tmp_path, prefer="size"), out=tmp_path))
    (chosen,) = [each for each in manifest.candidates if each.chosen]
    assert chosen.reason == "the smallest that meets all limits"
    met = [each.tuning.size.bytes for each in manifest.candidates if each.meets_gates]
    assert chosen.tuning.size.bytes == min(met)


def test_without_time_the_model_as_it_is_is_all_there_is_and_a_vocabulary_of_ones_own_comes_once(options, tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("a quiet film\n", encoding="utf-8")
    plan = replace(options, pipeline=write(tmp_path, minutes=0.001), vocabulary=str(texts), out=tmp_path)
    manifest, _, _ = carry_out(plan)
    assert manifest.search == []
    assert {each.pipeline for each in manifest.candidates} == {"cpu-dynamic", "cpu-table4"}
    for each in manifest.candidates:
        assert [stage.stage for stage in each.stages].count("prune_vocabulary") == 1


def test_minutes_are_short_for_the_searchs_own(options):
    assert make_plan(replace(options, minutes=7)).pipeline.search.minutes == 7


def test_minutes_without_a_search_are_refused(options):
    with pytest.raises(RequestError, match="has no stage 'search'"):
        make_plan(replace(options, pipeline="cpu-dynamic", minutes=7, settings={}))


def test_a_search_without_limits_on_answers_is_refused(options, tmp_path):
    path = tmp_path / "free.yaml"
    path.write_text("target: cpu\ncandidates: [cpu-dynamic]\nsearch: {}\n", encoding="utf-8")
    with pytest.raises(RequestError, match="limits on answers"):
        make_plan(replace(options, pipeline=str(path), settings={}))


@pytest.mark.parametrize("budgets", ["[]", "[0.3, 0.5]", "[1.0, 0.5]", "[0.5, 0.5]", "[0.5, 0]"])
def test_budgets_that_do_not_fall_are_refused(budgets, options, tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text(f"target: cpu\ncandidates: [cpu-dynamic]\nsearch: {{budgets: {budgets}}}\n", encoding="utf-8")
    with pytest.raises(RequestError, match="each smaller than the one before"):
        make_plan(replace(options, pipeline=str(path)))


@pytest.mark.parametrize("stages", ["stages: [export]\ncandidates: [cpu-dynamic]", "stages: [export]"])
def test_a_search_prunes_before_candidates_alone(stages, options, tmp_path):
    path = tmp_path / "both.yaml"
    path.write_text(f"target: cpu\n{stages}\nsearch: {{}}\n", encoding="utf-8")
    with pytest.raises(RequestError, match="give candidates, and no stages"):
        make_plan(replace(options, pipeline=str(path)))


def test_what_is_far_slower_than_the_fastest_is_built_of_no_pruned_model():
    forms = [Pipeline(name, "cpu", (), Gates()) for name in ("quick", "near", "far", "untimed")]
    artifact = Artifact(kind="onnx", path=Path("x"), digest="0", size_bytes=1)
    built = [Built([], Subject(form.name, artifact, "cpu"), None) for form in forms[:3]]
    heard, found = Heard(), Candidates(built)
    kept = near_the_fastest(forms, {"quick": 2.0, "near": 2.9, "far": 3.1}, found, heard)
    reason = "takes 3.10 ms before pruning, where the fastest takes 2.00"
    assert [each.name for each in kept] == ["quick", "near", "untimed"]
    assert [each.subject.name for each in found.built] == ["quick", "near"]
    assert found.failed == {"far": reason}
    assert heard.lines == [f"search: far: left out: {reason}"]


@pytest.mark.parametrize(
    ("limits", "strain"),
    [
        ({"max_relative_metric_drop": 0.01}, 2.0),
        ({"max_metric_drop": 0.008}, 2.0),
        ({"min_agreement": 0.9}, 0.5),
        ({"max_relative_metric_drop": 0.04, "min_agreement": 0.9}, 0.5),
        ({"max_relative_metric_drop": 0.0}, 0.02 / 1e-6),
    ],
)
def test_the_tightest_limit_is_what_counts(limits, strain):
    facts = {
        "tuning_relative_drop": 0.02,
        "tuning_metric": 0.8 * 0.98,
        "tuning_agreement": 0.95,
        "tuning_divergence": 0.1,
    }
    assert try_of(facts, 2.0, Gates(**limits)).strain == pytest.approx(strain)


LOST = {"tuning_relative_drop": 0.004, "tuning_agreement": 0.98, "tuning_metric": 0.9}


def test_what_the_vocabulary_lost_counts_with_what_comes_after():
    facts = {"tuning_relative_drop": 0.003, "tuning_agreement": 0.99, "tuning_metric": 0.9, "tuning_divergence": 0.1}
    found = with_lost(facts, LOST)
    assert found["tuning_relative_drop"] == pytest.approx(0.007)
    assert found["tuning_agreement"] == pytest.approx(0.97)
    assert found["tuning_divergence"] == 0.1
    assert with_lost(facts, {}) == facts


@pytest.mark.parametrize(("drop", "pruned"), [(0.002, True), (0.003, False), (-0.01, True)])
def test_a_vocabulary_that_takes_much_of_the_limits_stays_whole(options, monkeypatch, drop, pruned):
    real = descent.go_on

    def stating(folded, steps):
        steps = list(steps)
        found = real(folded, steps)
        if [each.stage for each in steps] != ["prune_vocabulary"]:
            return found
        *before, last = found.records
        stated = last.model_copy(update={"facts": {**last.facts, **LOST, "tuning_relative_drop": drop}})
        return replace(found, records=(*before, stated))

    monkeypatch.setattr(descent, "go_on", stating)
    plan = make_plan(replace(options, settings={"gates.max_relative_metric_drop": 0.01, "gates.min_agreement": 0.5}))
    heard = Heard()
    folded, lost = descent.opened(plan.candidates, plan.pipeline.search, load(plan, heard))
    assert [each.stage for each in folded.records] == (["prune_vocabulary"] if pruned else [])
    assert lost.get("tuning_relative_drop") == (drop if pruned else None)
    said = [line for line in heard.lines if "the vocabulary stays as it is" in line]
    assert [line.partition("smaller one ")[2] for line in said] == (
        [] if pruned else ["takes 30% of what the limits allow on tuning data"]
    )
