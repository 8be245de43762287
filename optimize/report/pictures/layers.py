"""A picture of what pruning keeps: each layer's heads and neurons, beside those that it had."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from optimize.report.facts import FactRow
from optimize.report.pictures import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINE_INCHES, FRAME_INCHES = 0.34, 1.25
BAR = 0.72
PANELS = (("heads", "attention heads", canvas.BLUE), ("neurons", "FFN neurons", canvas.VERMILION))


def draw_layers(rows: Sequence[FactRow], *, title: str) -> bytes | None:
    """A PNG with a panel for heads and one for neurons, a bar a layer; None where no row counts them."""
    counted = [row for row in rows if {"heads", "heads_before", "neurons", "neurons_before"} <= set(row)]
    if not counted:
        return None

    def paint(figure: Figure) -> None:
        panels = figure.subplots(1, len(PANELS), sharey=True)
        for axes, (name, label, colour) in zip(panels, PANELS, strict=True):
            _panel(axes, counted, name, label, colour)
        names = [f"layer {row.get('layer', place)}" for place, row in enumerate(counted)]
        panels[0].set_yticks(range(len(counted)), names)
        # Upside down: the first layer on top, as in the table.
        panels[0].set_ylim(len(counted) - 0.4, -0.6)
        canvas.write_title(figure, title)

    return canvas.draw_png(FRAME_INCHES + LINE_INCHES * len(counted), paint)


def _panel(axes: Axes, rows: Sequence[FactRow], name: str, label: str, colour: str) -> None:
    most = 0.0
    for place, row in enumerate(rows):
        kept, before = float(row[name]), float(row[f"{name}_before"])
        most = max(most, before)
        axes.barh(place, before, BAR, color=canvas.PALE)
        axes.barh(place, kept, BAR, color=colour)
        axes.annotate(
            f"{kept:,.0f} of {before:,.0f}",
            (before, place),
            xytext=(4, 0),
            textcoords="offset points",
            verticalalignment="center",
            fontsize=8,
        )
    canvas.clear_frame(axes)
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(0.0, 1.28 * most)  # room for the numbers behind the longest bar
    axes.set_xlabel(f"{label} kept (grey: pruned)")
    axes.xaxis.set_major_formatter("{x:,.0f}")
