from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from pydantic import ValidationError
from report.conftest import document, make_manifest

from optimize import manifest as module
from optimize.errors import RequestError
from optimize.gates import Gates, judge
from optimize.manifest import RENAMED, Drift, Manifest, dump, read, write

BASELINES = Path(__file__).parents[1] / "reports" / "baselines"

# The words of schemas 1 and 2, as they were published: other programs parse them.
WORDS = {
    "": "schema id created request environment source data stages measurements verdict",
    "request": "target head model data pipeline seed",
    "environment": "cpu features cores gpu versions",
    "source": "kind id revision digest",
    "data.certification": "count digest",
    "stages.0": "stage params facts seconds cached key artifact",
    "stages.0.artifact": "kind digest size_bytes",
    "measurements.0": ("name artifact_digest metric drift latency size load_seconds peak_memory_bytes not_measured"),
    "measurements.0.metric": "name value reference drop relative_drop interval examples p_value",
    "measurements.0.drift": "agreement kl cosine max_abs mean_abs padding_max_abs batch_max_abs",
    "measurements.0.latency.0": "shape p50_ms p90_ms p99_ms runs speedup speedup_interval",
    "measurements.0.size": "bytes by_component by_dtype",
    "verdict": "outcome checks",
    "verdict.checks.0": "name limit value outcome reason",
}


def at(content: object, path: str) -> object:
    for key in filter(None, path.split(".")):
        content = content[int(key)] if key.isdigit() else content[key]
    return content


@pytest.mark.parametrize("path", WORDS)
def test_the_words_of_the_schema_are_all_there(path):
    written = json.loads(dump(make_manifest()))

    assert set(WORDS[path].split()) <= set(at(written, path))


def test_the_schemas_number_is_written_first():
    written = json.loads(dump(make_manifest()))

    assert next(iter(written.items())) == ("schema", 2)


def test_a_manifest_reads_back_as_it_was_written(tmp_path):
    manifest = make_manifest()

    write(manifest, tmp_path)

    assert read(tmp_path) == manifest
    assert dump(read(tmp_path)) == (tmp_path / "manifest.json").read_text(encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_drift_that_is_no_number_becomes_null(value):
    measured = document()["measurements"]
    measured[1]["drift"] |= {"kl": value, "cosine": value, "max_abs": value}

    drift = json.loads(dump(make_manifest(measurements=measured)))["measurements"][1]["drift"]

    assert [drift[name] for name in ("kl", "cosine", "max_abs")] == [None, None, None]
    assert drift["mean_abs"] == 0.01


@pytest.mark.parametrize("path", sorted(set(WORDS) - {"data.certification"}))
def test_an_unknown_field_is_refused_wherever_it_stands(path):
    content = json.loads(json.dumps(document()))
    at(content, path)["surprise"] = 1

    with pytest.raises(ValidationError, match="surprise"):
        Manifest.model_validate(content)


def test_another_schema_is_refused_in_one_line(tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps(document(schema=3)), encoding="utf-8")

    with pytest.raises(RequestError, match="not a manifest of schema 1") as refused:
        read(tmp_path)
    assert "\n" not in str(refused.value)
    assert "'schema'" in str(refused.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "\x00"])
def test_what_is_no_manifest_is_refused(content, tmp_path):
    (tmp_path / "manifest.json").write_text(content, encoding="utf-8")

    with pytest.raises(RequestError, match="not a manifest of schema 1"):
        read(tmp_path)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "manifest.json").write_bytes(b"\xff\xfe{}")

    with pytest.raises(RequestError, match="not a manifest of schema 1"):
        read(tmp_path)


@pytest.mark.parametrize("place", [".", "nowhere", "file"])
def test_a_folder_without_a_manifest_is_refused(place, tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")

    with pytest.raises(RequestError, match=r"no readable manifest\.json"):
        read(tmp_path / place)


def test_an_interrupted_write_leaves_no_manifest(tmp_path, monkeypatch):
    def interrupted(*_: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module.os, "replace", interrupted)

    with pytest.raises(KeyboardInterrupt):
        write(make_manifest(), tmp_path)
    assert not (tmp_path / "manifest.json").exists()


def test_an_interrupted_rewrite_leaves_the_manifest_as_it_was(tmp_path, monkeypatch):
    write(make_manifest(), tmp_path)
    before = (tmp_path / "manifest.json").read_bytes()

    def interrupted(*_: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(module.os, "replace", interrupted)
    with pytest.raises(OSError, match="disk full"):
        write(make_manifest(id="other"), tmp_path)
    assert (tmp_path / "manifest.json").read_bytes() == before


def test_records_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        make_manifest().verdict.outcome = "passed"


def test_a_number_that_json_does_not_have_is_never_written():
    measured = document()["measurements"]
    measured[1]["load_seconds"] = math.nan

    with pytest.raises(ValueError, match="JSON"):
        dump(make_manifest(measurements=measured))


def test_a_null_drift_is_allowed_when_reading():
    numbers = dict.fromkeys(("kl", "cosine", "max_abs", "mean_abs", "padding_max_abs", "batch_max_abs"))

    drift = Drift(agreement=1.0, flips=0, decisions=1, compared=0, **numbers)

    assert drift.kl is None


def test_a_manifest_of_schema_1_is_read_in_todays_words():
    content = json.loads(json.dumps(document())) | {"schema": 1}
    record = content["stages"][-1]
    record["params"] = {"wide_sums": True, "method": "mse"}
    record["facts"] = {
        "wide_sums": "yes",
        "wide_sums_because": "avx512_vnni sums in 32 bits",
        "tuning_budget": "met",
        "settings": [{"setting": "kl", "within_budget": "no"}],
    }
    content["request"]["stages"] = [
        {"quantize_static": {"wide_sums": "auto"}},
        {"quantize_openvino": {"overflow_fix": False}},
    ]

    found = Manifest.model_validate(content)

    assert found.stages[-1].params == {"reduce_range": False, "method": "mse"}
    assert found.stages[-1].facts == {
        "reduce_range": False,
        "reduce_range_because": "avx512_vnni sums in 32 bits",
        "tuning_limits": "met",
        "settings": [{"setting": "kl", "within_limits": False}],
    }
    assert found.request.stages == [
        {"quantize_static": {"reduce_range": "auto"}},
        {"quantize_openvino": {"reduce_range": False}},
    ]
    assert json.loads(dump(found))["schema"] == 2


def test_runs_of_schema_1_in_the_baselines_read_in_todays_words():
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in BASELINES.glob("*/*.json")]
    runs = [run for run in runs if run["schema"] == 1]

    assert len(runs) > 20
    facts = [record.facts for run in runs for record in Manifest.model_validate(run).stages]
    assert all("yes" not in each.values() and not RENAMED.keys() & each.keys() for each in facts)


def limits_of(manifest):
    return Gates(**manifest.request.gates)


@pytest.mark.parametrize("path", sorted(BASELINES.glob("*/*.json")), ids=lambda path: "/".join(path.parts[-2:]))
def test_committed_verdicts_come_out_as_they_did_before_there_was_a_rule(path):
    old = Manifest.model_validate_json(path.read_text(encoding="utf-8"))
    assert limits_of(old).decided_by == "estimate"
    assert judge(limits_of(old), old.measurements[-1]) == old.verdict


@pytest.mark.parametrize(
    ("said", "rule"),
    [
        ({}, "estimate"),
        ({"confidence": 0.9}, "proven"),
        ({"confidence": None}, "estimate"),
        ({"rule": "not_worse", "confidence": 0.9}, "not_worse"),
    ],
)
def test_limits_without_a_rule_are_read_by_the_one_that_held_then(said, rule, tmp_path):
    content = json.loads(dump(make_manifest()))
    content["request"]["gates"] = {"max_metric_drop": 0.01, **said}
    (tmp_path / "manifest.json").write_text(json.dumps(content), encoding="utf-8")
    found = read(tmp_path).request.gates
    assert found == {"max_metric_drop": 0.01, **said, "rule": rule}
