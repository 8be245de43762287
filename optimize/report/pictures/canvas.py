"""What the pictures share: size, colours, and a PNG that depends on nothing but what is drawn.

Pictures are drawn through matplotlib's objects on its Agg backend. Its settings are the library's own
defaults while a picture is drawn, whatever the user's matplotlibrc says, and the user's again after.
matplotlib is slow to import and is imported by what draws alone.
"""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_INCHES, DOTS_PER_INCH = 9.0, 160
TITLE_CHARACTERS = 98
# Okabe and Ito's colours, which colour-blind readers can tell apart.
BLUE, SKY, GREEN, ORANGE, VERMILION, PINK = "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#CC79A7"
INK, GREY, PALE = "#222222", "#777777", "#DDDDDD"
SETTINGS: dict[str, object] = {
    "font.size": 9.0,
    "text.parse_math": False,  # a model's name may hold dollar signs
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.labelsize": 9.0,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "hatch.linewidth": 1.2,
}


def draw_png(height_inches: float, paint: Callable[[Figure], None]) -> bytes:
    """The PNG of what `paint` draws; the same bytes for the same picture and version of matplotlib."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(), warnings.catch_warnings():
        # Names in scripts that matplotlib's own font lacks are drawn as boxes; who reads stderr cannot help it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        # A Figure of its own, without pyplot, which would keep it for as long as the process lives.
        figure = Figure(figsize=(WIDTH_INCHES, height_inches), dpi=DOTS_PER_INCH, layout="constrained")
        FigureCanvasAgg(figure)
        paint(figure)
        stream = io.BytesIO()
        # Without its name and version, which would make other bytes of the same picture.
        figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def write_title(figure: Figure, title: str) -> None:
    """A bold title at the left edge, broken into lines that fit."""
    # matplotlib breaks no title by itself: a long Hub id would run out of the picture.
    lines = textwrap.fill(title, TITLE_CHARACTERS)
    figure.suptitle(lines, x=0.01, horizontalalignment="left", fontsize=10.5, fontweight="bold")


def clear_frame(axes: Axes) -> None:
    """Only the axes that are read; the others are noise."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.set_axisbelow(True)
