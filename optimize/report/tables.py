"""Tables as rows of strings, header first: the terminal and the Markdown page show the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING

from optimize.manifest import Latency, Manifest, Measurement
from optimize.measure.shapes import ON_DEVICE
from optimize.report.markdown import Markdown, plain

if TYPE_CHECKING:
    from optimize.measure.calibration_memory import Row
    from optimize.measure.peaks import Peak

Rows = list[tuple[str, ...]]
UNRELIABLE = "not reliable"
MISSING = "–"
REFERENCE = "pytorch-fp32"
"""The measurement that drops, drift and speed-ups refer to."""


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its first row the header; cells are shown as they are, unless they are Markdown already."""
    return lay_out([[cell if isinstance(cell, Markdown) else plain(cell) for cell in row] for row in rows])


def lay_out(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose cells are all Markdown."""
    header, *body = map(_line, rows)
    return "\n".join([header, _line(["---"] * len(rows[0])), *body])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_cell, cells))} |"


def _cell(cell: str) -> str:
    # A line break would end the row, and a bar the cell.
    return " ".join(cell.splitlines()).replace("|", "\\|")


def model_rows(manifest: Manifest) -> Rows:
    """One row for each measured model: metric, drop, agreement, size, latency and memory."""
    shape = judged_shape(manifest)
    metric = metric_name(manifest.measurements)
    rows: Rows = [("model", metric, "drop [interval]", "agreement", "size", f"ms at {shape}", "speed-up", "memory")]
    for measurement in manifest.measurements:
        rows.append(_model_row(measurement, shape))
    return rows


def _model_row(measurement: Measurement, shape: str) -> tuple[str, ...]:
    metric, drift = measurement.metric, measurement.drift
    latency = at_shape(measurement, shape)
    return (
        measurement.name,
        f"{metric.value:.4f}" if metric else MISSING,
        f"{metric.drop:+.4f} [{metric.interval[0]:+.4f}, {metric.interval[1]:+.4f}]" if metric else MISSING,
        f"{drift.agreement:.4f}" if drift else MISSING,
        f"{megabytes(measurement.size.bytes)} ({measurement.size.ratio:.3f})",
        f"{latency.p50_ms:.2f}" if latency else MISSING,
        speedup_text(latency, REFERENCE),
        megabytes(measurement.peak_memory_bytes),
    )


def overview_rows(manifests: Sequence[Manifest]) -> Rows:
    """One row for each run: its last model against its reference."""
    rows: Rows = [
        ("head", "model", "metric", "FP32", "result", "relative drop", "agreement", "size", "speed-up", "verdict")
    ]
    for manifest in manifests:
        request, outcome = manifest.request, manifest.verdict.outcome
        rows.append((request.head, request.model, *_overview_cells(manifest), outcome))
    return rows


def variant_rows(manifests: Mapping[str, Manifest]) -> Rows:
    """One row for each model of one checkpoint, by its name, against the FP32 checkpoint on the machine that ran it."""
    header = ("metric", "FP32", "result", "relative drop", "agreement", "size", "speed-up", "measured on")
    rows: Rows = [("model", *header)]
    for name, manifest in manifests.items():
        environment = manifest.environment
        rows.append((name, *_overview_cells(manifest), environment.gpu or environment.cpu))
    return rows


def _overview_cells(manifest: Manifest) -> tuple[str, ...]:
    if not manifest.measurements:
        return (MISSING,) * 7
    last = manifest.measurements[-1]
    metric, drift = last.metric, last.drift
    return (
        metric.name if metric else MISSING,
        f"{metric.reference:.4f}" if metric else MISSING,
        f"{metric.value:.4f}" if metric else MISSING,
        f"{metric.relative_drop:+.2%}" if metric and metric.relative_drop is not None else MISSING,
        f"{drift.agreement:.4f}" if drift else MISSING,
        f"{last.size.ratio:.3f}",
        speedup_text(at_shape(last, judged_shape(manifest)), REFERENCE),
    )


def latency_rows(measurements: Sequence[Measurement], *, on_device: bool = False) -> Rows:
    """Median milliseconds of each model at each shape, with the ratio to PyTorch FP32 and the target's FP32.

    `on_device` are the times from a device's memory to itself, of which there may be none.
    """
    shapes: list[str] = []
    for measurement in measurements:
        for latency in measurement.latency:
            if latency.shape.endswith(ON_DEVICE) == on_device and latency.shape not in shapes:
                shapes.append(latency.shape)
    rows: Rows = [("model", *(shape.removesuffix(ON_DEVICE) for shape in shapes))]
    if not shapes:
        return rows
    for measurement in measurements:
        rows.append((measurement.name, *(_latency_cell(at_shape(measurement, shape)) for shape in shapes)))
    return rows


def _latency_cell(latency: Latency | None) -> str:
    if latency is None:
        return MISSING
    # FP32 alone: a target may have references of other precision, which would make three ratios or more of two.
    ratios = " / ".join(f"{ratio:.2f}×" for name, ratio in latency.speedup.items() if name.endswith("-fp32"))
    text = f"{latency.p50_ms:.2f} ({ratios})" if ratios else f"{latency.p50_ms:.2f}"
    return f"{text}, {UNRELIABLE}" if latency.unreliable else text


def percentile_rows(measurements: Sequence[Measurement]) -> Rows:
    """Median, p90 and p99 of each model at each shape, and from how many runs."""
    rows: Rows = [("model", "shape", "p50 ms", "p90 ms", "p99 ms", "runs")]
    for measurement in measurements:
        for latency in measurement.latency:
            percentiles = map(_milliseconds, (latency.p50_ms, latency.p90_ms, latency.p99_ms))
            rows.append((measurement.name, latency.shape, *percentiles, f"{latency.runs:,}"))
    return rows


def _milliseconds(value: float | None) -> str:
    return f"{value:.2f}" if value is not None else MISSING


def weight_rows(measurements: Sequence[Measurement]) -> Rows:
    """Size, what gzip makes of it where that was measured, parameters, operations, parts, load time and peak memory.

    Operations are those of the encoder for one text of 128 tokens.
    """
    parts = in_order(measurement.size.by_component for measurement in measurements)
    rest = ("by type", "load s", "peak memory", "GPU memory")
    rows: Rows = [("model", "file", "ratio", "gzip", "parameters", "FLOPs", *parts, *rest)]
    for measurement in measurements:
        rows.append(_weight_row(measurement, parts))
    return _drop_empty(rows, "gzip", "GPU memory")


def _weight_row(measurement: Measurement, parts: Sequence[str]) -> tuple[str, ...]:
    size = measurement.size
    return (
        measurement.name,
        megabytes(size.bytes),
        f"{size.ratio:.3f}",
        megabytes(size.compressed_bytes),
        f"{size.parameters / 1e6:.2f} M" if size.parameters else MISSING,
        f"{size.encoder_flops / 1e9:.2f} G" if size.encoder_flops else MISSING,
        *(megabytes(size.by_component.get(part, 0)) for part in parts),
        ", ".join(f"{name} {megabytes(held)}" for name, held in size.by_dtype.items()),
        f"{measurement.load_seconds:.2f}" if measurement.load_seconds is not None else MISSING,
        megabytes(measurement.peak_memory_bytes),
        megabytes(measurement.device_memory_bytes),
    )


def _drop_empty(rows: Rows, *optional: str) -> Rows:
    """The table without those of its `optional` columns, named by their headers, that hold nothing."""
    columns = zip(*rows, strict=True)
    kept = [column for column in columns if column[0] not in optional or set(column[1:]) - {MISSING, ""}]
    return list(zip(*kept, strict=True))


def drift_rows(measurements: Sequence[Measurement]) -> Rows:
    """How far outputs moved from the reference's, and what padding and batching change."""
    rows: Rows = [("model", "agreement", "flips", "KL", "cosine", "max abs", "mean abs", "padding", "batching")]
    for measurement in measurements:
        drift = measurement.drift
        if drift is None:
            continue
        rows.append(
            (
                measurement.name,
                f"{drift.agreement:.4f}",
                f"{drift.flips} of {drift.decisions}",
                _small(drift.kl),
                f"{drift.cosine:.5f}" if drift.cosine is not None else MISSING,
                _small(drift.max_abs),
                _small(drift.mean_abs),
                _small(drift.padding_max_abs),
                _small(drift.batch_max_abs),
            )
        )
    return rows


def _small(value: float | None) -> str:
    return f"{value:.2e}" if value is not None else MISSING


def calibration_rows(calibration: Sequence[Row]) -> Rows:
    """Peak memory and seconds of each calibrator on so many texts, or why they were not measured."""
    rows: Rows = [("calibrator", "texts", "peak GB", "seconds", "why not")]
    for row in calibration:
        peak = f"{row.peak_bytes / 1e9:.2f}" if row.peak_bytes is not None else MISSING
        seconds = f"{row.seconds:.1f}" if row.seconds is not None else MISSING
        rows.append((row.calibrator, f"{row.samples:,}", peak, seconds, row.not_measured or ""))
    return _drop_empty(rows, "why not")


def limit_rows(measurements: Sequence[Measurement], peaks: Sequence[Peak], operations: Mapping[str, int]) -> Rows:
    """How long a model's products take at each peak, and for each model the share of its time that INT8's would be."""
    rows: Rows = [("at the limit", *operations)]
    for peak in peaks:
        name = f"{peak.kind}, {peak.operations_per_second / 1e12:.2f} T operations a second"
        rows.append((name, *(_milliseconds(peak.milliseconds(count)) for count in operations.values())))
    (limit,) = [peak for peak in peaks if peak.kind == "INT8"]
    for measurement in measurements:
        times = {shape: at_shape(measurement, shape) for shape in operations}
        shares = (
            f"{limit.milliseconds(operations[shape]) / time.p50_ms:.0%}" if time else MISSING
            for shape, time in times.items()
        )
        rows.append((f"{measurement.name}: INT8's of its time", *shares))
    return rows


def untimed(manifest: Manifest) -> str | None:
    """Why models were judged by their answers alone, and not timed; None where they were timed, or not judged."""
    measurements = manifest.measurements
    return measurements[-1].not_measured.get("latency") if measurements else None


def judged_shape(manifest: Manifest) -> str:
    """The shape at which speed is judged."""
    return str(manifest.request.gates.get("speedup_shape", "1x128"))


def at_shape(measurement: Measurement, shape: str) -> Latency | None:
    """The latency at a shape, if it was measured."""
    for latency in measurement.latency:
        if latency.shape == shape:
            return latency
    return None


def metric_name(measurements: Iterable[Measurement]) -> str:
    """What the models' metric is called; "metric" where none was measured."""
    for measurement in measurements:
        if measurement.metric:
            return measurement.metric.name
    return "metric"


def in_order(groups: Iterable[Iterable[str]]) -> list[str]:
    """Every name once, in the order in which they first come."""
    return list(dict.fromkeys(chain.from_iterable(groups)))


def speedup_text(latency: Latency | None, over: str) -> str:
    """A ratio with its interval."""
    if latency is None or over not in latency.speedup:
        return MISSING
    text = f"{latency.speedup[over]:.2f}×"
    interval = latency.speedup_interval.get(over)
    if interval:
        text += f" [{interval[0]:.2f}, {interval[1]:.2f}]"
    return f"{text}, {UNRELIABLE}" if latency.unreliable else text


def megabytes(size: int | None) -> str:
    """Bytes as megabytes (10^6) or kilobytes, as file managers and the Hub count; a dash where there is no number."""
    if size is None:
        return MISSING
    if size < 1_000:
        return f"{size} B"
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"
