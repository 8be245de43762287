"""What `auto` tried: how each candidate did on tuning data, and why it was chosen or not."""

from __future__ import annotations

from optimize.manifest import Candidate, Manifest
from optimize.report.markdown import plain
from optimize.report.tables import (
    MISSING,
    REFERENCE,
    Rows,
    at_shape,
    judged_shape,
    markdown_table,
    megabytes,
    metric_name,
    speedup_text,
)


def section(manifest: Manifest) -> str:
    """The section of the report's page; nothing where there was nothing to choose from."""
    if not manifest.candidates:
        return ""
    tuning = manifest.data["tuning"]
    return (
        f"## Candidates\n\n{markdown_table(candidate_rows(manifest))}\n\n"
        f"Compared on {tuning.count:,} tuning examples of split {plain(tuning.origin)}, with latency and size as "
        "measured then. The choice used no certification data; the verdict above rests on them, for the chosen model "
        "alone."
    )


def candidate_rows(manifest: Manifest) -> Rows:
    """One row for each candidate: metric and agreement on tuning data, speed-up, size, and why it was chosen or not."""
    tuned = [candidate.tuning for candidate in manifest.candidates if candidate.tuning]
    shape, plain = judged_shape(manifest), f"{manifest.request.target}-fp32"
    ratios = (f"over {REFERENCE} at {shape}", f"over {plain} at {shape}")
    rows: Rows = [("candidate", f"{metric_name(tuned)} (FP32)", "agreement", *ratios, "size", "limits", "why")]
    for candidate in manifest.candidates:
        rows.append(_row(candidate, shape, plain))
    return rows


def _row(candidate: Candidate, shape: str, plain: str) -> tuple[str, ...]:
    name = f"{candidate.pipeline} (chosen)" if candidate.chosen else candidate.pipeline
    tuned = candidate.tuning
    if tuned is None:
        return (name, *[MISSING] * 5, "not built", candidate.reason)
    latency = at_shape(tuned, shape)
    return (
        name,
        f"{tuned.metric.value:.4f} ({tuned.metric.reference:.4f})" if tuned.metric else MISSING,
        f"{tuned.drift.agreement:.4f}" if tuned.drift else MISSING,
        speedup_text(latency, REFERENCE),
        speedup_text(latency, plain),
        f"{megabytes(tuned.size.bytes)} ({tuned.size.ratio:.3f})",
        "met" if candidate.meets_gates else "missed",
        candidate.reason,
    )
