"""Tables as rows of strings, header first: the terminal and the Markdown page show the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from optimize.manifest import Latency, Manifest, Measurement
from optimize.measure.shapes import ON_DEVICE

if TYPE_CHECKING:
    from optimize.measure.calibration_memory import Row

Rows = list[tuple[str, ...]]
MISSING = "–"


def model_rows(manifest: Manifest) -> Rows:
    """One row a measured model: metric, drop, agreement, size, latency and memory."""
    measurements = manifest.measurements
    name = next((m.metric.name for m in measurements if m.metric), "metric")
    shape = manifest.request.gates.get("speedup_shape", "1x128")
    header = ("model", name, "drop [interval]", "agreement", "size", f"ms at {shape}", "speed-up", "memory")
    return [header, *(_model_row(measurement, shape) for measurement in measurements)]


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
        speedup_text(latency, "pytorch-fp32"),
        megabytes(measurement.peak_memory_bytes) if measurement.peak_memory_bytes else MISSING,
    )


def overview_rows(manifests: Sequence[Manifest]) -> Rows:
    """One row a run: its last model against its reference."""
    rows: Rows = [
        ("head", "model", "metric", "FP32", "result", "relative drop", "agreement", "size", "speed-up", "verdict")
    ]
    for manifest in manifests:
        last = manifest.measurements[-1] if manifest.measurements else None
        metric = last.metric if last else None
        rows.append(
            (
                manifest.request.head,
                manifest.request.model,
                metric.name if metric else MISSING,
                f"{metric.reference:.4f}" if metric else MISSING,
                f"{metric.value:.4f}" if metric else MISSING,
                f"{metric.relative_drop:+.2%}" if metric and metric.relative_drop is not None else MISSING,
                f"{last.drift.agreement:.4f}" if last and last.drift else MISSING,
                f"{last.size.ratio:.3f}" if last else MISSING,
                speedup_text(
                    at_shape(last, manifest.request.gates.get("speedup_shape", "1x128")) if last else None,
                    "pytorch-fp32",
                ),
                manifest.verdict.outcome,
            )
        )
    return rows


def latency_rows(measurements: Sequence[Measurement], *, on_device: bool = False) -> Rows:
    """Median milliseconds of each model at each shape, with the ratio to PyTorch FP32 and the target's FP32.

    `on_device` are the times from a device's memory to itself, of which there may be none.
    """
    shapes = list(dict.fromkeys(latency.shape for m in measurements for latency in m.latency))
    shapes = [shape for shape in shapes if shape.endswith(ON_DEVICE) == on_device]
    rows: Rows = [("model", *(shape.removesuffix(ON_DEVICE) for shape in shapes))]
    if not shapes:
        return rows
    for measurement in measurements:
        found = [at_shape(measurement, shape) for shape in shapes]
        rows.append((measurement.name, *(_latency_cell(latency) for latency in found)))
    return rows


def _latency_cell(latency: Latency | None) -> str:
    if latency is None:
        return MISSING
    ratios = " / ".join(f"{ratio:.2f}×" for name, ratio in latency.speedup.items() if name.endswith("-fp32"))
    return f"{latency.p50_ms:.2f} ({ratios})" if ratios else f"{latency.p50_ms:.2f}"


def percentile_rows(measurements: Sequence[Measurement]) -> Rows:
    """Median, p90 and p99 of each model at each shape, and from how many runs."""
    rows: Rows = [("model", "shape", "p50 ms", "p90 ms", "p99 ms", "runs")]
    for measurement in measurements:
        for latency in measurement.latency:
            tails = (f"{value:.2f}" if value is not None else MISSING for value in (latency.p90_ms, latency.p99_ms))
            rows.append((measurement.name, latency.shape, f"{latency.p50_ms:.2f}", *tails, str(latency.runs)))
    return rows


def weight_rows(measurements: Sequence[Measurement]) -> Rows:
    """Size, what gzip makes of it where that was measured, parameters, operations, parts, load time and peak memory.

    Operations are those of the encoder for one text of 128 tokens.
    """
    parts = list(dict.fromkeys(part for m in measurements for part in m.size.by_component))
    on_device = any(m.device_memory_bytes is not None for m in measurements)
    memory = ("peak memory", "GPU memory") if on_device else ("peak memory",)
    packed = ("gzip",) if any(m.size.compressed_bytes is not None for m in measurements) else ()
    rows: Rows = [("model", "file", "ratio", *packed, "parameters", "FLOPs", *parts, "by type", "load s", *memory)]
    for m in measurements:
        rows.append(
            (
                m.name,
                megabytes(m.size.bytes),
                f"{m.size.ratio:.3f}",
                *(megabytes(m.size.compressed_bytes) if m.size.compressed_bytes else MISSING for _ in packed),
                f"{m.size.parameters / 1e6:.2f} M" if m.size.parameters else MISSING,
                f"{m.size.encoder_flops / 1e9:.2f} G" if m.size.encoder_flops else MISSING,
                *(megabytes(m.size.by_component.get(part, 0)) for part in parts),
                ", ".join(f"{name} {megabytes(size)}" for name, size in m.size.by_dtype.items()),
                f"{m.load_seconds:.2f}" if m.load_seconds is not None else MISSING,
                *(
                    megabytes(held) if held else MISSING
                    for held in (m.peak_memory_bytes, m.device_memory_bytes)[: len(memory)]
                ),
            )
        )
    return rows


def drift_rows(measurements: Sequence[Measurement]) -> Rows:
    """How far outputs moved from the reference's, and what padding and batching change."""
    rows: Rows = [("model", "agreement", "flips", "KL", "cosine", "max abs", "mean abs", "padding", "batching")]
    for m in measurements:
        if m.drift is None:
            continue
        d = m.drift
        rows.append(
            (
                m.name,
                f"{d.agreement:.4f}",
                f"{d.flips} of {d.decisions}",
                _small(d.kl),
                f"{d.cosine:.5f}" if d.cosine is not None else MISSING,
                *(_small(value) for value in (d.max_abs, d.mean_abs, d.padding_max_abs, d.batch_max_abs)),
            )
        )
    return rows


def left_out(measurements: Sequence[Measurement]) -> list[str]:
    """How many examples have outputs that were not compared with the reference's, model by model."""
    return [
        f"- {each.name}, drift of outputs: {each.drift.left_out:,} examples, which its own tokenizer splits otherwise"
        for each in measurements
        if each.drift and each.drift.left_out
    ]


def _small(value: float | None) -> str:
    return f"{value:.2e}" if value is not None else MISSING


def calibration_rows(calibration: Sequence[Row]) -> Rows:
    """Peak memory and seconds of each calibrator on so many texts, or why they were not measured."""
    rows: Rows = [("calibrator", "texts", "peak GB", "seconds", "why not")]
    for row in calibration:
        peak = f"{row.peak_bytes / 1e9:.2f}" if row.peak_bytes is not None else MISSING
        seconds = f"{row.seconds:.1f}" if row.seconds is not None else MISSING
        rows.append((row.calibrator, f"{row.samples:,}", peak, seconds, row.not_measured or ""))
    return rows if any(row.not_measured for row in calibration) else [row[:-1] for row in rows]


def untimed(manifest: Manifest) -> str | None:
    """Why models were judged by their answers alone, and not timed; None where they were timed, or not judged."""
    measurements = manifest.measurements
    return measurements[-1].not_measured.get("latency") if measurements else None


def at_shape(measurement: Measurement, shape: str) -> Latency | None:
    """The latency at a shape, if it was measured."""
    return next((latency for latency in measurement.latency if latency.shape == shape), None)


def speedup_text(latency: Latency | None, over: str) -> str:
    """A ratio with its interval."""
    if latency is None or over not in latency.speedup:
        return MISSING
    text = f"{latency.speedup[over]:.2f}×"
    interval = latency.speedup_interval.get(over)
    return f"{text} [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else text


def megabytes(size: int) -> str:
    """Bytes as megabytes (10^6) or kilobytes, as file managers and the Hub count."""
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first row is its header."""
    header, *body = [[" ".join(str(cell).splitlines()).replace("|", "\\|") for cell in row] for row in rows]
    lines = [header, ["---"] * len(header), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
