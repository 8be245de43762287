from __future__ import annotations

import pytest
from report.conftest import GATES, REQUEST, STAGES, document, latency, make_manifest, measurement

from optimize.measure.calibration_memory import Row
from optimize.report import tables


def test_a_models_row_shows_score_drop_size_and_speed(manifest):
    header, reference, last = tables.model_rows(manifest)

    assert header == ("model", "accuracy", "drop [interval]", "agreement", "size", "ms at 1x128", "speed-up", "memory")
    assert reference[2] == "+0.0000 [-0.0100, +0.0100]"
    assert last == (
        "quantize_dynamic",
        "0.8950",
        "+0.0050 [-0.0050, +0.0150]",
        "0.9900",
        "60.0 MB (0.300)",
        "10.00",
        "3.00× [2.90, 3.10]",
        "180.0 MB",
    )


def test_a_models_latency_is_that_at_the_gates_shape():
    request = {**REQUEST, "gates": {**GATES, "speedup_shape": "1x16"}}
    timings = [latency("1x16", 4.0, pytorch_fp32=2.0), latency("1x128", 9.0, pytorch_fp32=3.0)]

    header, row = tables.model_rows(
        make_manifest(request=request, measurements=[measurement("export", 0.9, 10_000_000, timings)])
    )

    assert (header[5], row[5], row[6]) == ("ms at 1x16", "4.00", "2.00× [1.90, 2.10]")


def test_calibrators_have_a_reason_where_one_was_not_measured():
    measured, failed = Row("streaming", 512, 880_000_000, 9.46), Row("onnxruntime", 512, None, None, "needed more")

    assert tables.calibration_rows([measured]) == [
        ("calibrator", "texts", "peak GB", "seconds"),
        ("streaming", "512", "0.88", "9.5"),
    ]
    assert tables.calibration_rows([measured, failed])[2] == ("onnxruntime", "512", "–", "–", "needed more")


def test_what_was_not_measured_is_a_dash():
    bare = {**measurement("export", 0.9, 10_000_000, []), "metric": None, "drift": None, "peak_memory_bytes": None}

    header, row = tables.model_rows(make_manifest(measurements=[bare]))

    assert header[1] == "metric"
    assert row == ("export", "–", "–", "–", "10.0 MB (0.050)", "–", "–", "–")


def test_a_percentile_that_too_few_runs_show_is_a_dash(manifest):
    header, first, _ = tables.percentile_rows(manifest.measurements)

    assert header == ("model", "shape", "p50 ms", "p90 ms", "p99 ms", "runs")
    assert first == ("pytorch-fp32", "1x128", "30.00", "60.00", "–", "20")


def test_latencies_line_up_by_shape_where_one_is_missing():
    both = measurement("pytorch-fp32", 0.9, 200_000_000, [latency("1x16", 5.0), latency("1x128", 30.0)])
    one = measurement("export", 0.9, 200_000_000, [latency("1x128", 15.0, pytorch_fp32=2.0, cpu_fp32=1.25)])

    rows = tables.latency_rows(make_manifest(measurements=[both, one]).measurements)

    assert rows == [
        ("model", "1x16", "1x128"),
        ("pytorch-fp32", "5.00", "30.00"),
        ("export", "–", "15.00 (2.00× / 1.25×)"),
    ]


def test_sizes_line_up_by_part_where_one_is_missing():
    small = measurement("export", 0.9, 20_000_000, [])
    small["size"] |= {"by_component": {"head": 20_000_000}, "parameters": 5_000_000, "encoder_flops": 1_234_000_000}
    whole = measurement("pytorch-fp32", 0.9, 200_000_000, [])

    header, first, last = tables.weight_rows(make_manifest(measurements=[whole, small]).measurements)

    assert header[3:8] == ("parameters", "FLOPs", "ffn", "embedding", "head")
    assert first[1:8] == ("200.0 MB", "1.000", "–", "–", "100.0 MB", "100.0 MB", "0 B")
    assert last[3:8] == ("5.00 M", "1.23 G", "0 B", "0 B", "20.0 MB")


def test_what_gzip_makes_of_models_has_a_column_where_it_was_measured(manifest):
    packed = measurement("prune_weights", 0.9, 20_000_000, [])
    packed["size"] = {**packed["size"], "compressed_bytes": 12_000_000}

    header, first, last = tables.weight_rows(
        make_manifest(measurements=[measurement("pytorch-fp32", 0.9, 200_000_000, []), packed]).measurements
    )

    assert (header[3], first[3], last[3]) == ("gzip", "–", "12.0 MB")
    assert "gzip" not in tables.weight_rows(manifest.measurements)[0]


def test_drift_rows_leave_out_models_without_drift_and_dash_missing_numbers(manifest):
    bare = manifest.measurements[0].model_copy(update={"drift": None})

    header, row = tables.drift_rows([bare, manifest.measurements[1]])

    assert len(header) == len(row)
    assert row[:5] == ("quantize_dynamic", "0.9900", "10 of 1000", "1.00e-03", "–")


def test_the_overview_has_a_row_a_run_even_where_nothing_was_measured(manifest, built_only):
    header, passed, built = tables.overview_rows([manifest, built_only])

    assert {len(header), len(passed), len(built)} == {10}
    assert passed[2:6] == ("accuracy", "0.9000", "0.8950", "+0.56%")
    assert passed[-2:] == ("3.00× [2.90, 3.10]", "passed")
    assert built[2:] == ("–", "–", "–", "–", "–", "–", "–", "unverified")


def test_a_reference_of_zero_has_no_relative_drop():
    measured = document()["measurements"]
    measured[1]["metric"]["relative_drop"] = None

    _, row = tables.overview_rows([make_manifest(measurements=measured)])

    assert row[5] == "–"


@pytest.mark.parametrize(
    ("size", "text"),
    [(None, "–"), (999, "999 B"), (1_000, "1.0 kB"), (99_949, "99.9 kB"), (100_000, "0.1 MB"), (268e6, "268.0 MB")],
)
def test_sizes_are_in_powers_of_a_thousand(size, text):
    assert tables.megabytes(size) == text


def test_tables_do_not_change_what_they_are_made_from(manifest):
    before = manifest.model_dump()

    tables.model_rows(manifest)
    tables.weight_rows(manifest.measurements)

    assert manifest.model_dump() == before
    assert [record["stage"] for record in STAGES] == ["export", "quantize_dynamic"]


def test_times_on_a_device_have_a_table_of_their_own():
    timings = [latency("1x128", 4.0, pytorch_fp32=2.0, pytorch_fp16=1.5, cuda_fp32=1.2), latency("1x128@device", 3.0)]
    found = [measurement("convert_fp16", 0.9, 10_000_000, timings)]
    made = make_manifest(measurements=[{**found[0], "device_memory_bytes": 700_000_000}]).measurements

    assert tables.latency_rows(made) == [("model", "1x128"), ("convert_fp16", "4.00 (2.00× / 1.20×)")]
    assert tables.latency_rows(made, on_device=True) == [("model", "1x128"), ("convert_fp16", "3.00")]
    header, row = tables.weight_rows(made)
    assert (header[-1], row[-1]) == ("GPU memory", "700.0 MB")


def test_without_a_device_there_is_no_such_table(manifest):
    assert tables.latency_rows(manifest.measurements, on_device=True) == [("model",)]
    assert tables.weight_rows(manifest.measurements)[0][-1] == "peak memory"


def test_models_judged_by_their_answers_alone_say_why(manifest):
    last = {**measurement("convert_fp16", 0.9, 10_000_000, []), "not_measured": {"latency": "no CUDA device"}}
    assert tables.untimed(make_manifest(measurements=[last])) == "no CUDA device"
    assert tables.untimed(manifest) is None
    assert tables.untimed(make_manifest(measurements=[])) is None
