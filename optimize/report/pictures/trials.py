"""A picture of a search over fine-tunings: what each trial scored on tuning data after how many steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optimize.report.pictures import canvas
from optimize.tuned import Outcome, Trial, Tuned

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEIGHT_INCHES = 4.2
LOOKS: dict[Outcome, tuple[str, str]] = {
    "finished": (canvas.BLUE, "-"),
    "out of time": (canvas.GREEN, "-."),
    "stopped": (canvas.GREY, "--"),
    "failed": (canvas.ORANGE, ":"),
    "running": (canvas.SKY, "-"),
}
"""Colour and line of a trial by how it ended."""
CHOSEN = canvas.VERMILION


def draw_trials(record: Tuned) -> bytes:
    """A PNG with a line for each trial that was measured, the chosen one in front, its number at its end."""
    from matplotlib.ticker import MaxNLocator

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        canvas.clear_frame(axes)
        axes.set_xlabel("steps")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylabel(f"{record.metric} on tuning data")
        for trial in sorted(record.trials, key=lambda each: each.number == record.chosen):
            if trial.curve:
                _line(axes, trial, chosen=trial.number == record.chosen)
        lines, names = _legend(axes)
        axes.legend(lines, names, loc="lower right", frameon=False)
        canvas.write_title(figure, f"{record.base.id}, {record.asked.head}: {len(record.trials)} trials")

    return canvas.draw_png(HEIGHT_INCHES, paint)


def _line(axes: Axes, trial: Trial, *, chosen: bool) -> None:
    colour, style = (CHOSEN, "-") if chosen else LOOKS[trial.outcome]
    steps, values = [point.step for point in trial.curve], [point.value for point in trial.curve]
    axes.plot(
        steps,
        values,
        color=colour,
        linestyle=style,
        linewidth=2.2 if chosen else 1.2,
        marker="o",
        markersize=3.0,
        label="chosen" if chosen else trial.outcome,
    )
    axes.annotate(
        str(trial.number), (steps[-1], values[-1]), textcoords="offset points", xytext=(4, -3), fontsize=8, color=colour
    )


def _legend(axes: Axes) -> tuple[list[Artist], list[str]]:
    """A line for each way that trials ended."""
    lines, names = axes.get_legend_handles_labels()
    first = {name: line for line, name in zip(reversed(lines), reversed(names), strict=True)}
    return list(first.values()), list(first)
