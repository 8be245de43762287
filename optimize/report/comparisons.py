"""Runs side by side, as tables of strings and as a page. Folders' names are long, so runs are called A, B and so on."""

from __future__ import annotations

from collections.abc import Iterator
from string import ascii_uppercase

from optimize.compared import Answers, Comparison, Decided, Side, Speed
from optimize.report.markdown import plain
from optimize.report.tables import MISSING, REFERENCE, Rows, in_order, markdown_table, megabytes

NOT_COMPARABLE = "not comparable"
ABOUT_RUNS = (
    f"Speed-up is over the run's own {REFERENCE}, from the same rounds. Agreement is with that reference too, and the "
    "verdict is that of the run's own limits."
)
ABOUT_PAIRS = (
    "Both results judged the same examples, one by one. *Difference* is the second run's score minus the first's, with "
    "its 95% interval (paired bootstrap); p is two-sided, of the exact McNemar test where the metric is the share of "
    "right answers, else of the bootstrap. *Right alone* counts examples that the first run has right and the second "
    "has not, and the other way. Size and time are the second's over the first's: above 1 is larger, or slower."
)


def run_rows(comparison: Comparison) -> Rows:
    """One row for each run."""
    shapes = in_order([each.shape for each in run.latency] for run in comparison.runs)
    names = [f"ms at {shape} (speed-up)" for shape in shapes]
    first = ("", "run", "head", "model", "target", "pipeline", "metric", "score", "FP32", "agreement", "size")
    rows: Rows = [(*first, *names, "verdict")]
    for place, run in enumerate(comparison.runs):
        rows.append(
            (
                letter(place),
                *(run.name, run.head, run.model, run.target, run.pipeline),
                run.metric or MISSING,
                *(_number(value) for value in (run.value, run.reference, run.agreement)),
                f"{megabytes(run.size_bytes)} ({run.size_ratio:.3f})",
                *(_time(run, shape) for shape in shapes),
                run.outcome,
            )
        )
    return rows


def letter(place: int) -> str:
    """What the run at a place is called; beyond the alphabet, by its number."""
    return ascii_uppercase[place] if place < len(ascii_uppercase) else f"#{place + 1}"


def _number(value: float | None) -> str:
    return MISSING if value is None else f"{value:.4f}"


def _time(run: Side, shape: str) -> str:
    timed = next((each for each in run.latency if each.shape == shape), None)
    if timed is None:
        return MISSING
    over = timed.speedup.get(REFERENCE)
    text = f"{timed.p50_ms:.2f}" + (f" ({over:.2f}×)" if over else "")
    return f"{text}, not reliable" if timed.unreliable else text


def pair_rows(comparison: Comparison) -> Rows:
    """One row for each pair: answers, decisions, size, and times at each shape."""
    shapes = in_order([each.shape for each in pair.speed] for pair in comparison.pairs)
    columns = ("difference [interval]", "right alone", "p", "same decisions", "size")
    rows: Rows = [("runs", *columns, *(f"time at {shape}" for shape in shapes))]
    for place, pair in enumerate(comparison.pairs, 1):
        speeds = {each.shape: each for each in pair.speed}
        times = [_speed(speeds[shape]) if shape in speeds else MISSING for shape in shapes]
        rows.append(
            (
                f"A, then {letter(place)}",
                *_answers(pair.answers),
                _decided(pair.decisions),
                f"{pair.size_ratio:.3f}",
                *times,
            )
        )
    return rows


def _answers(answers: Answers | None) -> tuple[str, str, str]:
    if answers is None:
        return NOT_COMPARABLE, MISSING, MISSING
    low, high = answers.interval
    alone = f"{answers.first_alone:,} / {answers.second_alone:,}" if answers.first_alone is not None else MISSING
    return f"{answers.difference:+.4f} [{low:+.4f}, {high:+.4f}]", alone, f"{answers.p_value:.3g}"


def _decided(decided: Decided | None) -> str:
    if decided is None:
        return NOT_COMPARABLE
    return f"{decided.agreement:.4f} ({decided.differing:,} of {decided.decisions:,} differ)"


def _speed(speed: Speed) -> str:
    if speed.ratio is None:
        return NOT_COMPARABLE
    return f"{speed.ratio:.2f}×" + (f" (each beside its {speed.over})" if speed.over else "")


def notes(comparison: Comparison) -> Iterator[str]:
    """Why cells have no number, and in what environments differ."""
    for place, pair in enumerate(comparison.pairs, 1):
        name = f"A, then {letter(place)}"
        if pair.answers_not_comparable:
            yield f"{name}: answers are not comparable: {pair.answers_not_comparable}"
        if pair.decisions_not_comparable:
            yield f"{name}: decisions are not comparable: {pair.decisions_not_comparable}"
        if pair.environment:
            yield f"{name}: environments differ in " + "; ".join(pair.environment)
        for speed in pair.speed:
            if speed.not_comparable:
                yield f"{name}: times at {speed.shape} are not comparable: {speed.not_comparable}"


def render_comparison(comparison: Comparison) -> str:
    """The page."""
    listed = "\n".join(f"- {plain(note)}." for note in notes(comparison))
    parts = [
        "# Runs side by side",
        markdown_table(run_rows(comparison)),
        ABOUT_RUNS,
        "## The others beside A",
        markdown_table(pair_rows(comparison)),
        ABOUT_PAIRS,
        listed,
    ]
    return "\n\n".join(filter(None, parts)) + "\n"
