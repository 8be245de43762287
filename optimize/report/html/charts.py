"""Vega-Lite's drawings as SVG that stands in the page: its colours are the page's own, by CSS variables.

vl-convert compiles and draws a specification without a browser. The library's scripts would be 0.9 MB of every page;
an SVG is a few thousand bytes, is there before any script, and prints.
"""

from __future__ import annotations

import hashlib
import html
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from markupsafe import Markup

from optimize.report.html.parts import Chart
from optimize.report.tables import REFERENCE

NARROW, WIDE = 328, 860
"""Pixels of a drawing, axes included."""
INK, MUTED, LINE = "var(--ink)", "var(--muted)", "var(--line)"
ORIGINAL, BETWEEN, RESULT = "var(--original)", "var(--between)", "var(--result)"
HUES = tuple(f"var(--hue-{number})" for number in range(1, 7))
Spec = dict[str, Any]
"""A specification in Vega-Lite's words."""
CONFIG: Spec = {
    "background": "transparent",
    "padding": {"left": 14, "right": 8, "top": 4, "bottom": 0},
    "font": "sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": MUTED,
        "titleColor": MUTED,
        "gridColor": LINE,
        "domainColor": LINE,
        "tickColor": LINE,
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "titlePadding": 8,
        "labelLimit": 150,
    },
    "legend": {
        "labelColor": INK,
        "titleColor": MUTED,
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "orient": "top",
        "symbolType": "square",
        "symbolStrokeWidth": 0,
        "columns": 3,
    },
    "text": {"color": INK, "fontSize": 11},
    "bar": {"cornerRadiusEnd": 2},
}


def colour_of(model: str, result: str) -> str:
    """The reference's, the judged model's, or that of all others."""
    if model == REFERENCE:
        return ORIGINAL
    return RESULT if model == result else BETWEEN


def chart(title: str, about: str, draw: Callable[[int], Spec], *, wide: bool = False) -> Chart:
    """A chart of what `draw` specifies for a width in pixels."""
    return Chart(title, about, _svg(draw(NARROW), about), _svg(draw(WIDE), about) if wide else None)


def _svg(spec: Spec, about: str) -> Markup:
    """The drawing; a mark's own words are what a reader sees who points at it."""
    import vl_convert

    fitted = {"autosize": {"type": "fit-x", "contains": "padding"}, **spec, "config": CONFIG}
    asked = json.dumps(fitted, allow_nan=False)
    text: str = vl_convert.vegalite_to_svg(asked)
    text = _with_own_names(text, hashlib.sha256(asked.encode()).hexdigest()[:8])
    text = re.sub(r' (xmlns(:xlink)?|version|class)="[^"]*"', "", text)
    return Markup(text.replace("<svg", f'<svg role="img" aria-label="{html.escape(about)}"', 1))


def _with_own_names(svg: str, own: str) -> str:
    """Names that no other drawing of the page has; the library counts those of its clips through a whole process."""
    numbers: dict[str, int] = {}

    def renamed(found: re.Match[str]) -> str:
        return f"{found[1]}c{own}-{numbers.setdefault(found[2], len(numbers))}"

    return re.sub(r'(\bid="|url\(#)([\w-]+)', renamed, svg)


def rows(*values: Mapping[str, object]) -> Spec:
    """Data that a specification holds itself."""
    return {"values": list(values)}


def words(field: str = "words") -> Spec:
    """The field that says in words what a mark shows."""
    return {"field": field, "type": "nominal"}
