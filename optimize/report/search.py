"""What a search tried before its candidates were built: how far it pruned each model, and what that had cost."""

from __future__ import annotations

from optimize.manifest import Manifest
from optimize.report.tables import Rows, markdown_table

TITLE = "Search"


def section(manifest: Manifest) -> str:
    """The section of the report's page; nothing where nothing was searched."""
    if not manifest.search:
        return ""
    return f"## {TITLE}\n\n{markdown_table(probe_rows(manifest))}\n\n{about(manifest)}"


def about(manifest: Manifest) -> str:
    """How to read it."""
    return (
        "Each model in FP32, before INT8, on a part of the tuning data. Each budget begins with the model that learnt "
        "last before it. Minutes spent count what stages took when they were carried out, now or in an earlier run."
    )


def probe_rows(manifest: Manifest) -> Rows:
    """One row for each try, in order."""
    header = ("encoder kept", "minutes learnt", "metric", "relative drop", "agreement", "limits", "minutes spent")
    rows: Rows = [header]
    for probe in manifest.search:
        rows.append(
            (
                f"{probe.budget:.0%}",
                f"{probe.minutes:.1f}",
                f"{probe.metric:.4f}",
                f"{probe.relative_drop:+.2%}",
                f"{probe.agreement:.4f}",
                "met" if probe.within else "missed",
                f"{probe.spent_minutes:.0f}",
            )
        )
    return rows
