"""A picture of the sensitivity table: how each group of operators alone changes the outputs, and what time it saves."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optimize.report.facts import FactRow
from optimize.report.pictures import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {
    "attention input": canvas.BLUE,
    "attention output": canvas.SKY,
    "FFN in": canvas.VERMILION,
    "FFN out": canvas.ORANGE,
    "embedding": canvas.GREEN,
    "head": canvas.PINK,
}
HATCH = "////"
LINE_INCHES, FRAME_INCHES = 0.2, 1.35
BAR = 0.78
CHARACTER_SHARE = 0.03
"""Of the narrow panel's width."""
SQNR = "SQNR of the outputs, dB (higher is better)"
SAVED = "µs saved at 1x128 (higher is better)"


@dataclass(frozen=True)
class Bar:
    """One group: its name within the layer, where it stands, and what was measured."""

    label: str
    kind: str
    place: int
    in_float: bool
    sqnr_db: float
    saved_us: float


def draw_sensitivity(rows: Sequence[FactRow], *, title: str) -> bytes | None:
    """A PNG with a bar for each group's SQNR and, where times were measured, one for the time it saves.

    None where no row holds a group and its SQNR.
    """
    bars, headings = _arrange(list(filter(is_measured, rows)))
    if not bars:
        return None
    lines = len(bars) + len(headings)

    def paint(figure: Figure) -> None:
        timed = any(bar.saved_us for bar in bars)
        grid = figure.subplots(1, 2 if timed else 1, sharey=True, squeeze=False, width_ratios=[3, 2] if timed else None)
        left = grid[0][0]
        _panel(left, bars, lambda bar: bar.sqnr_db, SQNR)
        if timed:
            _panel(grid[0][1], bars, lambda bar: bar.saved_us, SAVED)
        _name_lines(left, bars, headings, lines)
        canvas.write_title(figure, title)
        _legend(figure, bars)

    return canvas.draw_png(FRAME_INCHES + LINE_INCHES * lines, paint)


def is_measured(row: FactRow) -> bool:
    """Whether a row holds a group and its SQNR."""
    value = row.get("sqnr_db")
    return "group" in row and isinstance(value, int | float) and math.isfinite(value)


def _arrange(rows: Sequence[FactRow]) -> tuple[list[Bar], dict[int, str]]:
    """Bars from top to bottom in the order of the rows, and a line with the layer's name above each layer."""
    bars: list[Bar] = []
    headings: dict[int, str] = {}
    place, current = 0, ""
    for row in rows:
        layer, label = split_layer(str(row["group"]))
        if layer != current and (layer or current):
            headings[place] = layer
            place += 1
        current = layer
        kind = kind_of(str(row["group"]))
        in_float = row.get("form") == "float"
        bars.append(Bar(label, kind, place, in_float, float(row["sqnr_db"]), _finite(row.get("saved_us"))))
        place += 1
    return bars, headings


def _finite(value: object) -> float:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else 0.0


def split_layer(group: str) -> tuple[str, str]:
    """`layer.0.ffn.lin1` as `layer 0` and `ffn.lin1`; what is in no layer has an empty one."""
    found = re.match(r"layer\.(\d+)\.(.+)", group)
    return (f"layer {found[1]}", found[2]) if found else ("", group)


def kind_of(group: str) -> str:
    """Which part of the network a group is."""
    if "attention" in group:
        return "attention output" if "out_lin" in group else "attention input"
    if "ffn" in group:
        return "FFN in" if "lin1" in group else "FFN out"
    return "embedding" if "embedding" in group else "head"


def _panel(axes: Axes, bars: Sequence[Bar], value_of: Callable[[Bar], float], label: str) -> None:
    values, labels = list(map(value_of, bars)), []
    for bar, value in zip(bars, values, strict=True):
        colour = COLOURS[bar.kind]
        filled = "white" if bar.in_float else colour
        hatch = HATCH if bar.in_float else None
        labels.append(_words(bar, value, label))
        axes.barh(bar.place, value, BAR, color=filled, edgecolor=colour, hatch=hatch, linewidth=1.0)
        axes.annotate(
            labels[-1],
            (max(value, 0.0), bar.place),
            xytext=(4, 0),
            textcoords="offset points",
            verticalalignment="center",
            fontsize=8,
            fontweight="bold" if bar.in_float else "normal",
        )
    canvas.clear_frame(axes)
    axes.tick_params(axis="y", length=0)
    _make_room(axes, values, labels)
    axes.set_xlabel(label)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.grid(axis="x", color=canvas.PALE, linewidth=0.8)


def _words(bar: Bar, value: float, label: str) -> str:
    """What stands behind a bar: its number and, in one of the panels, that the group is left in float."""
    number = f"{value:,.1f}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{number}  left in float" if bar.in_float and label == SQNR else number


def _make_room(axes: Axes, values: Sequence[float], labels: Sequence[str]) -> None:
    """Widen the axis so that each bar's label fits behind it."""
    low, high = min(0.0, *values), max(1e-9, *values)
    end = high
    for value, label in zip(values, labels, strict=True):
        # A label's width is not known before it is drawn, and drawing it needs the axis: so by its characters.
        width = (0.035 + CHARACTER_SHARE * len(label)) * (high - low)
        end = max(end, max(value, 0.0) + width)
    axes.set_xlim(1.05 * low, end)


def _name_lines(axes: Axes, bars: Sequence[Bar], headings: dict[int, str], lines: int) -> None:
    """Names at the left edge; a layer's own line is bold."""
    names = dict(headings)
    for bar in bars:
        names[bar.place] = bar.label
    names = dict(sorted(names.items()))
    axes.set_yticks(list(names), list(names.values()))
    for place, text in zip(names, axes.get_yticklabels(), strict=True):
        if place in headings:
            text.set_fontweight("bold")
    axes.set_ylim(lines - 0.4, -0.6)  # upside down: the first group on top, as in the table


def _legend(figure: Figure, bars: Sequence[Bar]) -> None:
    from matplotlib.patches import Patch

    shown = {bar.kind for bar in bars}
    patches = [Patch(facecolor=colour, label=kind) for kind, colour in COLOURS.items() if kind in shown]
    if any(bar.in_float for bar in bars):
        patches.append(Patch(facecolor="white", edgecolor=canvas.INK, hatch=HATCH, label="left in float"))
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), frameon=False)
