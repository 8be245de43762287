from __future__ import annotations

import shlex
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from report.conftest import REQUEST, SOURCE, document, latency, make_manifest, measurement

from optimize import planning
from optimize.cli import commands
from optimize.errors import RequestError
from optimize.report.page import command, render
from optimize.report.tables import markdown_table
from optimize.request import Asked, Options

SECTIONS = ["Models", "Stages", "Latency", "Drift", "Size and memory", "Data", "Checkpoint and machine", "Reproduce"]


def headings(page: str) -> list[str]:
    return [line.removeprefix("## ") for line in page.splitlines() if line.startswith("## ")]


def tables_of(page: str) -> list[list[str]]:
    """Runs of lines that are a Markdown table."""
    blocks = [block.splitlines() for block in page.split("\n\n")]
    return [block for block in blocks if block[0].startswith("| ")]


@pytest.mark.parametrize(
    ("outcome", "words"),
    [("passed", "**PASSED**"), ("failed", "**FAILED**"), ("unverified", "**UNVERIFIED**")],
)
def test_the_page_begins_with_what_was_judged_and_the_verdict(outcome, words):
    verdict = {**document()["verdict"], "outcome": outcome}

    lines = render(make_manifest(verdict=verdict)).splitlines()

    assert lines[0] == "# text-classification on cpu: someone/distilbert-sst2"
    assert lines[2].startswith(words)


def test_the_page_has_all_sections_in_order(manifest):
    assert headings(render(manifest)) == SECTIONS


def test_the_limits_are_a_table_with_what_was_measured(manifest):
    limits = tables_of(render(manifest))[0]

    assert limits[0] == "| limit | set to | measured | outcome | why |"
    assert limits[2:] == ["| min_speedup | 1.5 | 3 | passed | speed-up 3.00x |"]


def test_how_splits_were_made_is_said_once_with_the_splits_that_it_is_of():
    data = {name: {**split, "notes": ["a sample"]} for name, split in document()["data"].items()}
    data["certification"]["notes"] = [
        "a sample",
        "left out 1 of 9 rows drawn, which cannot be used: line 3: has no text",
    ]

    page = render(make_manifest(data=data))

    assert f"- {', '.join(data)}: a sample." in page
    assert "- certification: left out 1 of 9 rows drawn, which cannot be used: line 3: has no text." in page
    assert ": a sample" not in render(make_manifest())


def test_a_limit_without_a_measurement_shows_a_dash():
    check = {"name": "min_speedup", "limit": 1.5, "value": None, "outcome": "unverified", "reason": "not measured"}

    page = render(make_manifest(verdict={"outcome": "unverified", "checks": [check]}))

    assert "| min_speedup | 1.5 | – | unverified | not measured |" in page


def test_every_table_has_as_many_cells_in_each_row_as_in_its_header(manifest):
    for table in tables_of(render(manifest)):
        assert {line.replace("\\|", "").count("|") for line in table} == {table[0].count("|")}


def test_a_bar_in_a_cell_does_not_end_the_cell():
    assert markdown_table([("a", "b"), ("x|y", "z")]).splitlines() == ["| a | b |", "| --- | --- |", "| x\\|y | z |"]


def test_a_line_break_in_a_cell_does_not_end_the_row():
    assert markdown_table([("a",), ("x\ny",)]).splitlines() == ["| a |", "| --- |", "| x y |"]


def test_a_cached_stage_says_so(manifest):
    export, quantize = render(manifest).split("## Stages\n\n")[1].split("\n\n")[0].splitlines()[2:]

    assert "| opset: 17 |" in export
    assert "| 12.3 (cached) |" in export
    assert "| 12.3 |" in quantize


def test_missing_percentiles_are_dashes(manifest):
    assert "| quantize_dynamic | 1x128 | 10.00 | 20.00 | – | 20 |" in render(manifest)


def test_what_was_not_measured_is_listed_with_the_reason():
    measured = document()["measurements"]
    measured[1]["not_measured"] = {"latency 1x384": "longer than the model's 128 positions"}

    page = render(make_manifest(measurements=measured))

    assert headings(page) == [*SECTIONS[:5], "Not measured", *SECTIONS[5:]]
    assert "- quantize_dynamic, latency 1x384: longer than the model's 128 positions" in page


def test_a_model_that_was_only_built_says_how_to_certify_it(built_only):
    page = render(built_only)

    assert "No limit was checked." in page
    assert "optimize certify" in page
    assert headings(page) == ["Stages", "Data", "Checkpoint and machine", "Reproduce"]


def test_the_page_says_which_model_is_which(manifest):
    plain = measurement("cpu-fp32", 0.9, 200_000_000, [])
    measured = document()["measurements"]

    with_plain = render(make_manifest(measurements=[measured[0], plain, measured[1]]))

    assert "`pytorch-fp32` is the checkpoint in PyTorch" in with_plain
    assert "`cpu-fp32` is the same converted for the target, without any optimization." in with_plain
    assert "`cpu-fp32`" not in render(manifest)


def test_the_shape_of_the_data_is_explained_where_it_was_measured(manifest):
    timed = [measurement("pytorch-fp32", 0.9, 200_000_000, [latency("1x128", 4.0), latency("data", 2.0)])]

    assert "Shape `data` is one example" in render(make_manifest(measurements=timed))
    assert "Shape `data`" not in render(manifest)


def test_examples_whose_outputs_were_not_compared_are_counted_with_the_reason():
    measured = document()["measurements"]
    measured[1]["drift"]["left_out"] = 1234

    assert "- quantize_dynamic, drift of 1,234 examples: its own tokenizer splits them" in (
        render(make_manifest(measurements=measured))
    )


def test_other_metrics_have_a_table_of_their_own(manifest):
    assert ["| model | macro_f1 |", "| --- | --- |", "| pytorch-fp32 | 0.8000 |", "| quantize_dynamic | 0.7950 |"] in (
        tables_of(render(manifest))
    )


def test_a_p_value_is_shown_only_where_there_is_one(manifest):
    measured = document()["measurements"]
    measured[1]["metric"]["p_value"] = None

    assert "McNemar test of the last model against the reference: p = 0.25" in render(manifest)
    assert "McNemar" not in render(make_manifest(measurements=measured))


def test_the_revision_is_shown_where_there_is_one(manifest):
    folder = make_manifest(source={**SOURCE, "kind": "folder", "revision": None})

    assert "checkpoint: hub `someone/distilbert-sst2` at `abc123`, stored as float16" in render(manifest)
    assert "checkpoint: folder `someone/distilbert-sst2`, stored as float16" in render(folder)


def test_how_a_checkpoint_was_read_is_said_where_it_was_odd(manifest):
    odd = {"base": "someone/base", "base_revision": "def456", "wrapper": "module.", "left_out": "pooler.dense.weight"}

    page = render(make_manifest(source={**SOURCE, **odd}))

    assert "- adapter: merged by peft into `someone/base` at `def456`" in page
    assert "- names of weights: all began with `module.`, which is dropped" in page
    assert "- left out, since its class has no use for them: pooler.dense.weight" in page
    assert not any(word in render(manifest) for word in ("adapter", "all began with", "left out, since"))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model": "my models/it's mine", "data": "/data/with space", "pipeline": "my pipelines/custom.yaml"},
        {
            "columns": {"text": "the review", "label": "stars"},
            "revision": None,
            "max_tokens": None,
            "data_revision": "v1",
        },
        {"settings": {"quantize_static.exclude": ["a b", "*c"], "gates.min_speedup": 1.5}, "budget": 0.5},
        {"runtime": {"hint": "throughput", "lengths": "16 64"}, "vocabulary": "a file.txt", "fastest_within": 0.01},
    ],
)
def test_the_command_asks_for_the_same_again(changes, monkeypatch):
    request = make_manifest(request={**REQUEST, **changes}).request
    asked: list[Options] = []

    def note(options: Options, **_: object) -> None:
        asked.append(options)
        raise RequestError("enough")

    monkeypatch.setattr(planning, "make_plan", note)
    monkeypatch.setattr(sys, "argv", shlex.split(command(request).replace("\\\n", "")))
    with pytest.raises(SystemExit):
        commands.main()

    same = {field.name for field in fields(Asked)}
    assert {name: getattr(asked[0], name) for name in same} == {name: getattr(request, name) for name in same}
    assert asked[0].out == Path("reports/runs")


def test_the_page_is_a_function_of_the_manifest_alone(manifest, no_files):
    assert render(manifest) == render(make_manifest())


def test_models_with_one_digest_are_said_to_be_one(manifest):
    first, last = manifest.measurements[0], manifest.measurements[-1]
    same = [first, last.model_copy(update={"artifact_digest": first.artifact_digest})]

    page = render(manifest.model_copy(update={"measurements": same}))

    assert f"The same model, measured once: {first.name} and {last.name}." in page
    assert "The same model" not in render(manifest)


def test_times_on_a_device_are_shown_apart():
    timings = [latency("1x128", 4.0, pytorch_fp32=2.0), latency("1x128@device", 3.0, pytorch_fp32=2.5)]
    page = render(make_manifest(measurements=[measurement("convert_fp16", 0.9, 10_000_000, timings)]))
    assert "On the device alone, with inputs and outputs in its own memory:\n\n| model | 1x128 |" in page
    assert "@device" not in page.split("<details>")[0]


def test_a_threshold_is_named_beside_the_splits(manifest):
    said = "The threshold `no_answer`, -1.5000, was fixed on tuning data"

    assert said in render(make_manifest(thresholds={"no_answer": -1.5}))
    assert said not in render(manifest)
