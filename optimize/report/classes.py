"""The page's section on classes: F1 of each beside the reference's, the worst drops first."""

from __future__ import annotations

from optimize.manifest import ClassF1, MacroF1, Manifest
from optimize.report.markdown import plain
from optimize.report.tables import REFERENCE, Rows, markdown_table

MOST_ROWS = 20
"""Classes that are shown; of the others it is said how many there are."""


def section(manifest: Manifest) -> str:
    """F1 by class of the model that was judged; nothing where its answers are no classes."""
    metric = manifest.measurements[-1].metric if manifest.measurements else None
    if metric is None or metric.macro_f1 is None:
        return ""
    # Of equal drops the rarest first: the fewer examples, the more such a drop may hide.
    order = sorted(metric.classes, key=lambda each: (-each.drop, each.support))
    rows: Rows = [("class", "right answers", REFERENCE, plain(manifest.measurements[-1].name), "drop [interval]")]
    rows.append(("all, mean (macro F1)", f"{sum(each.support for each in order):,}", *_cells(metric.macro_f1)))
    for each in order[:MOST_ROWS]:
        rows.append((each.name, f"{each.support:,}", *_cells(each)))
    more = len(order) - MOST_ROWS
    rest = f"\n\nAnd {more:,} more, with smaller drops." if more > 0 else ""
    about = (
        "F1 of each class among the right answers, the largest drops first. A score of all answers hides what is lost "
        "of a rare one."
    )
    return f"## Classes\n\n{about}\n\n{markdown_table(rows)}{rest}"


def _cells(score: ClassF1 | MacroF1) -> tuple[str, str, str]:
    low, high = score.interval
    return f"{score.reference:.4f}", f"{score.value:.4f}", f"{score.drop:+.4f} [{low:+.4f}, {high:+.4f}]"
