"""A picture of a benchmark: how many times as fast as PyTorch FP32 each model is, at each shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from optimize.manifest import Latency, Measurement
from optimize.report.pictures import canvas
from optimize.report.tables import REFERENCE, at_shape, in_order

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINE_INCHES, FRAME_INCHES = 0.27, 1.3
BAR = 0.72
ROOM = 1.28
"""Of the longest bar, so that the number beside it fits."""
HATCH = "////"
NOTE = "Lines are 95 % intervals. Hatched is not reliable: the machine was busy, or rounds contradict each other."


def draw_speedups(measurements: Sequence[Measurement], *, title: str) -> bytes | None:
    """A PNG with a panel for each shape and a bar for each model; None where nothing was timed beside PyTorch FP32.

    Lines on bars are intervals. Of what is not reliable the bars are hatched.
    """
    shapes = in_order([each.shape for each in one.latency if REFERENCE in each.speedup] for one in measurements)
    if not shapes:
        return None

    def paint(figure: Figure) -> None:
        grid = figure.subplots(1, len(shapes), sharey=True, squeeze=False)
        for axes, shape in zip(grid[0], shapes, strict=True):
            _panel(axes, [at_shape(one, shape) for one in measurements], shape)
        first = grid[0][0]
        first.set_yticks(range(len(measurements)), [one.name for one in measurements])
        first.invert_yaxis()
        figure.supxlabel(NOTE, fontsize=8, color=canvas.GREY)
        canvas.write_title(figure, title)

    return canvas.draw_png(FRAME_INCHES + LINE_INCHES * len(measurements), paint)


def _panel(axes: Axes, latencies: Sequence[Latency | None], shape: str) -> None:
    canvas.clear_frame(axes)
    axes.set_xlabel(f"times as fast, {shape}")
    axes.axvline(1.0, color=canvas.GREY, linewidth=0.8, linestyle="--")
    longest = 1.0
    for place, latency in enumerate(latencies):
        speedup = latency.speedup.get(REFERENCE) if latency else None
        if latency is None or speedup is None:
            continue
        low, high = latency.speedup_interval.get(REFERENCE, (speedup, speedup))
        colour = canvas.GREY if speedup == 1.0 else canvas.BLUE
        hatch, edge = (HATCH, canvas.PALE) if latency.unreliable else (None, None)
        axes.barh(place, speedup, height=BAR, color=colour, hatch=hatch, edgecolor=edge)
        axes.plot([low, high], [place, place], color=canvas.INK, linewidth=1.2)
        longest = max(longest, high)
        axes.text(max(speedup, high) + 0.02 * longest, place, f"{speedup:.2f}×", verticalalignment="center", fontsize=8)
    axes.set_xlim(0.0, ROOM * longest)
    axes.tick_params(axis="y", length=0)
