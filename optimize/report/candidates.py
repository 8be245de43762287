"""What `auto` tried: how each candidate stood on tuning data, and why it was chosen or not."""

from __future__ import annotations

from optimize.manifest import Candidate, Manifest
from optimize.report.tables import MISSING, Rows, at_shape, megabytes, speedup_text


def section(manifest: Manifest) -> str:
    """The section of the report's page; nothing where there was nothing to choose from."""
    from optimize.report.tables import markdown_table

    if not manifest.candidates:
        return ""
    tuning = manifest.data["tuning"]
    return (
        f"## Candidates\n\n{markdown_table(candidate_rows(manifest))}\n\n"
        f"Compared on {tuning.count:,} tuning examples of split {tuning.origin}, with latency and size as measured "
        "then. The choice saw no certification data; the verdict above rests on them, for the chosen model alone."
    )


def candidate_rows(manifest: Manifest) -> Rows:
    """One row a candidate: metric and agreement on tuning data, speed-up, size, and what became of it."""
    metrics = (each.tuning.metric for each in manifest.candidates if each.tuning and each.tuning.metric)
    name = next((metric.name for metric in metrics), "metric")
    shape = str(manifest.request.gates.get("speedup_shape", "1x128"))
    references = ("pytorch-fp32", f"{manifest.request.target}-fp32")
    ratios = (f"over {reference} at {shape}" for reference in references)
    header = ("candidate", f"{name} (FP32)", "agreement", *ratios, "size", "limits", "why")
    return [header, *(_row(candidate, shape, references) for candidate in manifest.candidates)]


def _row(candidate: Candidate, shape: str, references: tuple[str, ...]) -> tuple[str, ...]:
    name = f"{candidate.pipeline} (chosen)" if candidate.chosen else candidate.pipeline
    tuned = candidate.tuning
    if tuned is None:
        return (name, *[MISSING] * (3 + len(references)), "not built", candidate.reason)
    latency = at_shape(tuned, shape)
    return (
        name,
        f"{tuned.metric.value:.4f} ({tuned.metric.reference:.4f})" if tuned.metric else MISSING,
        f"{tuned.drift.agreement:.4f}" if tuned.drift else MISSING,
        *(speedup_text(latency, reference) for reference in references),
        f"{megabytes(tuned.size.bytes)} ({tuned.size.ratio:.3f})",
        "met" if candidate.meets_gates else "missed",
        candidate.reason,
    )
