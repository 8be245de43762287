"""What got worse since the last accepted run: the page's section, and the terminal's table."""

from __future__ import annotations

from optimize.compared import Change, Regression
from optimize.report.markdown import plain
from optimize.report.tables import MISSING, Rows, markdown_table

OUTCOMES = {
    "passed": "Nothing got worse",
    "failed": "**Something got worse**",
    "unverified": "Something could not be compared",
}


def section(regression: Regression | None) -> str:
    """The section of the report's page; nothing where the run was held against none."""
    if regression is None:
        return ""
    baseline = regression.baseline
    about = (
        f"{OUTCOMES[regression.outcome]} since {plain(baseline.name)}, run {plain(baseline.id)} of "
        f"{plain(baseline.created)}. Answers are compared on the same examples: metric and agreement count as worse "
        f"where paired tests say so, at {regression.alpha:.0%} for both together. The other numbers are held to "
        "tolerances. *Where* is the part of the run at which most of it came about."
    )
    differ = "; ".join(regression.environment)
    environment = f"Environments differ: {plain(differ)}." if differ else ""
    parts = ["## Since the last accepted run", about, markdown_table(change_rows(regression)), environment]
    return "\n\n".join(filter(None, parts))


def change_rows(regression: Regression) -> Rows:
    """One row for each number."""
    rows: Rows = [("what", "baseline", "run", "worse by", "outcome", "where", "why")]
    for each in regression.changes:
        values = (_number(each.baseline), _number(each.value), _amount(each, each.loss))
        rows.append((each.name, *values, each.outcome, _where(each), why(each)))
    return rows


def _where(change: Change) -> str:
    blame = change.blame
    return f"{blame.stage} ({_amount(change, blame.change)})" if blame else MISSING


def why(change: Change) -> str:
    """The reason, with the part of the run that a loss comes from most, and what of its settings differs."""
    if change.blame is None:
        return change.reason
    settings = "; ".join(f"{name}: {words}" for name, words in change.blame.settings.items())
    return f"{change.reason}; most of it at {_where(change)}{f', {settings}' if settings else ''}"


def _number(value: float | None) -> str:
    if value is None:
        return MISSING
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"


def _amount(change: Change, amount: float | None) -> str:
    """Points of what was tested, a share of anything else."""
    if amount is None:
        return MISSING
    return f"{amount:+.4f}" if change.p_value is not None else f"{amount:+.1%}"
