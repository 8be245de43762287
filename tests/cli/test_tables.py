"""The tables that commands print."""

from __future__ import annotations

from pathlib import Path

import pytest
from report.conftest import REVERTED, SENSITIVITY, document, make_manifest, stages_with

from optimize.bench import Benchmark
from optimize.cli import names, tables, verbosity
from optimize.heads import HEADS
from optimize.measure.calibration_memory import Row
from optimize.measure.peaks import Peak
from optimize.stages import STAGES
from optimize.targets import TARGETS


@pytest.mark.parametrize("outcome", ["passed", "failed", "unverified"])
def test_a_shown_run_ends_with_its_verdict_and_where_it_lies(outcome, capsys):
    manifest = make_manifest(verdict={"outcome": outcome, "checks": document()["verdict"]["checks"]})

    tables.show_run(Path("reports/runs/some-run"), manifest)

    out = capsys.readouterr().out
    assert out.splitlines()[-1] == f"{outcome}  reports/runs/some-run/report.html"
    assert "min_speedup: speed-up 3.00x" in out
    assert "stages: export (cached), quantize_dynamic" in out


def test_a_shown_run_that_was_only_built_is_unverified(capsys):
    manifest = make_manifest(measurements=[], verdict={"outcome": "unverified", "checks": []})

    tables.show_run(Path("run"), manifest)

    assert capsys.readouterr().out.splitlines()[-1] == "unverified  run/report.html"


def test_brackets_in_names_and_headers_are_shown_as_they_are(capsys):
    request = {**document()["request"], "model": "/models/[red]mine"}

    tables.show_run(Path("runs [bold]/x"), make_manifest(request=request))

    out = capsys.readouterr().out
    assert "text-classification on cpu, /models/[red]mine" in out
    assert "drop [interval]" in out
    assert "passed  runs [bold]/x/report.html" in out


def test_the_overview_has_each_runs_verdict(capsys):
    failed = make_manifest(verdict={"outcome": "failed", "checks": []})

    tables.show_overview([make_manifest(), failed])

    lines = [line for line in capsys.readouterr().out.splitlines() if "someone/distilbert-sst2" in line]
    assert ["passed" in line for line in lines] == [True, False]
    assert ["failed" in line for line in lines] == [False, True]


def test_a_bench_says_that_accuracy_means_nothing(capsys):
    tables.show_bench(Benchmark(make_manifest().measurements, []))

    out = capsys.readouterr().out
    assert "10.00 (3.00× / 2.50×)" in out
    assert out.splitlines()[-1].endswith("accuracy means nothing here and is not measured")


def test_a_bench_shows_what_calibrators_took_or_why_it_was_not_measured(capsys):
    measured, failed = Row("streaming", 64, 880_000_000, 9.5), Row("onnxruntime", 512, None, None, "needed more")

    tables.show_bench(Benchmark(make_manifest().measurements, [measured, failed]))

    lines = [" ".join(line.replace("│", " ").split()) for line in capsys.readouterr().out.splitlines()]
    assert "streaming 64 0.88 9.5" in lines
    assert "onnxruntime 512 – – needed more" in lines


def test_a_bench_shows_how_near_to_the_limit_each_model_comes(capsys):
    """At 0.4 T operations a second 2 G take 5 ms, half of the result's 10."""
    found = Benchmark(
        make_manifest().measurements,
        [],
        peaks=[Peak("FP32", (128, 768, 768), 1e11), Peak("INT8", (128, 768, 768), 4e11)],
        operations={"1x128": 2_000_000_000},
        left_out={"pytorch-bf16": "the CPU does not compute in BF16"},
    )
    tables.show_bench(found)

    lines = [" ".join(line.replace("│", " ").split()) for line in capsys.readouterr().out.splitlines()]
    assert "FP32, 0.10 T operations a second 20.00" in lines
    assert "INT8, 0.40 T operations a second 5.00" in lines
    assert "quantize_dynamic: INT8's of its time 50%" in lines
    assert "pytorch-bf16: not measured: the CPU does not compute in BF16" in lines


def test_a_shown_run_counts_its_stages_tables(capsys):
    tables.show_run(Path("run"), make_manifest(stages=stages_with(sensitivity=SENSITIVITY, reverted=REVERTED)))

    out = capsys.readouterr().out
    assert "  quantize_dynamic: 26 groups measured alone, 1 group left in float\n" in out
    assert "word_embeddings" not in out


def test_the_tables_name_every_target_head_and_stage(capsys):
    tables.show_names(names.list_names())

    out = capsys.readouterr().out
    assert [name for name in (*TARGETS, *HEADS, *STAGES, "cpu-fused") if name not in out] == []


def test_a_quiet_run_shows_its_verdict_alone(capsys):
    verbosity.be_quiet(True)
    try:
        tables.show_run(Path("run"), make_manifest())
    finally:
        verbosity.be_usual()

    assert capsys.readouterr().out == "passed  run/report.html\n"
