"""What got worse since the last accepted run: the page's section, and the terminal's table."""

from __future__ import annotations

from optimize.compared import Change, Regression
from optimize.report.markdown import plain
from optimize.report.tables import MISSING, Rows, markdown_table

TITLE = "Since the last accepted run"
OUTCOMES = {
    "passed": "Nothing got worse",
    "failed": "Something got worse",
    "unverified": "Something could not be compared",
}


def section(regression: Regression | None) -> str:
    """The section of the report's page; nothing where the run was held against none."""
    if regression is None:
        return ""
    about = plain(how_compared(regression))
    table, environment = markdown_table(change_rows(regression)), plain(environments(regression))
    return "\n\n".join(
        filter(None, (f"## {TITLE}", f"**{OUTCOMES[regression.outcome]}.** {about}", table, environment))
    )


def headline(regression: Regression | None) -> str:
    """What got worse, or could not be compared, by name; nothing where all is as it was, or nothing was compared."""
    if regression is None or regression.outcome == "passed":
        return ""
    names = [plain(each.name) for each in regression.changes if each.outcome == regression.outcome]
    which = f": {', '.join(names)}" if names else ""
    return f"**{OUTCOMES[regression.outcome]} since the last accepted run{which}.**"


def how_compared(regression: Regression) -> str:
    """Which run it was held against, and how."""
    baseline = regression.baseline
    return (
        f"Held against {baseline.name}, run {baseline.id} of {baseline.created}. Answers are compared on the same "
        "examples: metric, agreement and F1 by class count as worse where paired tests say so, at "
        f"{regression.alpha:.0%} for all together. The other numbers are held to tolerances, times beside FP32. "
        '"Where" is the part of the run at which most of it came about.'
    )


def environments(regression: Regression) -> str:
    """In what the machines differ; nothing where they do not."""
    differ = "; ".join(regression.environment)
    return f"Environments differ: {differ}." if differ else ""


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
