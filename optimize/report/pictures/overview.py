"""A picture of a run: each model's accuracy against its latency, with the limits that it must meet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from optimize.manifest import Manifest
from optimize.report.pictures import canvas
from optimize.report.tables import at_shape, megabytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

REFERENCE = "pytorch-fp32"
HEIGHT_INCHES = 4.6
LARGEST_AREA = 420.0
"""Points squared of the largest model's marker."""
DISTANCES = (4, 12, 22, 34, 48, 64, 82)
"""Points between a marker and its label, in the order in which they are tried."""


@dataclass(frozen=True)
class Point:
    """One model; `names` are those of all measurements that are of this very model."""

    names: tuple[str, ...]
    latency_ms: float
    metric: float
    interval: tuple[float, float]
    size_bytes: int
    speedup: float | None

    @property
    def text(self) -> str:
        """The label beside its marker."""
        ratio = f" ({self.speedup:.2f}×)" if self.speedup is not None and REFERENCE not in self.names else ""
        return f"{', '.join(self.names)}\n{milliseconds(self.latency_ms)}{ratio}, {megabytes(self.size_bytes)}"


def milliseconds(value: float) -> str:
    """A latency in three significant digits or more."""
    return f"{value:.2f} ms" if value < 10 else f"{value:.1f} ms"


def shape_of(manifest: Manifest) -> str:
    """The shape at which speed is judged."""
    return str(manifest.request.gates.get("speedup_shape", "1x128"))


def points_of(manifest: Manifest) -> list[Point]:
    """The models of which both accuracy and latency at the judged shape were measured, each model once."""
    found: dict[tuple[str, str], Point] = {}
    for m in manifest.measurements:
        latency = at_shape(m, shape_of(manifest))
        if m.metric is None or latency is None:
            continue
        names = (*found[m.subject].names, m.name) if m.subject in found else (m.name,)
        low, high = (m.metric.reference - drop for drop in reversed(m.metric.interval))
        speedup = latency.speedup.get(REFERENCE)
        found[m.subject] = Point(names, latency.p50_ms, m.metric.value, (low, high), m.size.bytes, speedup)
    return list(found.values())


def overview_chart(manifest: Manifest, *, title: str) -> bytes | None:
    """A PNG with a marker for each model; None where fewer than two have both measurements."""
    points = points_of(manifest)
    if len(points) < 2:
        return None
    last = manifest.measurements[-1].name
    metric = next(m.metric for m in manifest.measurements if m.metric)

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        _mark(axes, points, last)
        _limits(axes, manifest)
        _frame(axes, points)
        axes.set_xlabel(f"median ms at {shape_of(manifest)}, batch x tokens (lower is better)")
        axes.set_ylabel(f"{metric.name} on {metric.examples:,} examples (higher is better)")
        canvas.write_title(figure, title)
        handles = _key(axes, metric.confidence)
        figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
        _label(figure, axes, points, last)

    return canvas.draw_png(HEIGHT_INCHES, paint)


def _colour(point: Point, last: str) -> str:
    if REFERENCE in point.names:
        return canvas.GREY
    return canvas.VERMILION if last in point.names else canvas.BLUE


def _radius(point: Point, points: Sequence[Point]) -> float:
    """Of the marker, in points."""
    return float((LARGEST_AREA * point.size_bytes / max(other.size_bytes for other in points)) ** 0.5 / 2)


def _mark(axes: Axes, points: Sequence[Point], last: str) -> None:
    """Large markers first, so that small ones lie on top."""
    for point in sorted(points, key=lambda point: -point.size_bytes):
        colour = _colour(point, last)
        axes.vlines(point.latency_ms, *point.interval, color=colour, linewidth=1.5)
        area = (2 * _radius(point, points)) ** 2
        axes.scatter(point.latency_ms, point.metric, s=area, color=colour, edgecolor="white", linewidth=1.0, zorder=3)


def _limits(axes: Axes, manifest: Manifest) -> None:
    """Lines at what the gates demand of the last model."""
    gates = manifest.request.gates
    reference = next(m.metric.reference for m in manifest.measurements if m.metric)
    sure = ", its whole interval" if gates.get("confidence") else ""
    drops = [gates.get("max_metric_drop"), gates.get("max_relative_metric_drop")]
    allowed = [drop * scale for drop, scale in zip(drops, (1.0, abs(reference)), strict=True) if drop is not None]
    if allowed:
        label = f"limit: {reference - min(allowed):.4f} or more{sure}"
        axes.axhline(reference - min(allowed), color=canvas.INK, linewidth=1.0, linestyle="--", label=label)
    over = str(gates.get("speedup_over", REFERENCE))
    slow = next((at_shape(m, shape_of(manifest)) for m in manifest.measurements if m.name == over), None)
    if gates.get("min_speedup") and slow:
        label = f"limit: {gates['min_speedup']:g}× the speed of {over}{sure}"
        axes.axvline(slow.p50_ms / gates["min_speedup"], color=canvas.INK, linewidth=1.0, linestyle=":", label=label)


def _frame(axes: Axes, points: Sequence[Point]) -> None:
    canvas.clear_frame(axes)
    axes.grid(color=canvas.PALE, linewidth=0.8)
    axes.margins(y=0.2)
    axes.set_xlim(0.0, 1.15 * max(point.latency_ms for point in points))


def _key(axes: Axes, confidence: float) -> list[Any]:
    """What markers, bars and lines mean."""
    from matplotlib.lines import Line2D

    result = Line2D([], [], color=canvas.VERMILION, linestyle="none", marker="o", markersize=7.0)
    result.set_label("the result (marker area: size of the file)")
    lines = [line for line in axes.lines if not str(line.get_label()).startswith("_")]
    return [
        result,
        Line2D([], [], color=canvas.GREY, label=f"{confidence:.0%} interval of the difference to {REFERENCE}"),
        *lines,
    ]


def _label(figure: Figure, axes: Axes, points: Sequence[Point], last: str) -> None:
    """Write each model's name where it covers nothing, at the nearest such place."""
    figure.draw_without_rendering()  # only now it is known what lies where
    taken = [_extent(axes, point, _radius(point, points) + 1) for point in points] + _lines(axes, points)
    for point in points:
        radius = _radius(point, points)
        text = axes.annotate(
            point.text,
            (point.latency_ms, point.metric),
            xytext=(0, 0),
            textcoords="offset points",
            fontsize=8.5,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5},
            zorder=2,
            fontweight="bold" if last in point.names else "normal",
        )
        text.set_in_layout(False)
        place, box = min(_places(text, radius), key=lambda tried: _overlap(tried[1], taken, axes.bbox))
        _move(text, place)
        taken.append(box)
        if max(map(abs, place)) > radius + DISTANCES[0]:
            leader = {"arrowstyle": "-", "color": canvas.GREY, "linewidth": 0.6, "shrinkA": 0, "shrinkB": radius}
            at = (point.latency_ms, point.metric)
            axes.annotate("", at, xytext=place, textcoords="offset points", arrowprops=leader).set_in_layout(False)


def _extent(axes: Axes, point: Point, radius: float) -> Bbox:
    """What a marker covers, in pixels."""
    from matplotlib.transforms import Bbox

    x, y = axes.transData.transform((point.latency_ms, point.metric))
    pixels = radius * canvas.DOTS_PER_INCH / 72
    return Bbox.from_extents(x - pixels, y - pixels, x + pixels, y + pixels)


def _lines(axes: Axes, points: Sequence[Point]) -> list[Bbox]:
    """What intervals and limits cover, in pixels."""
    from matplotlib.transforms import Bbox

    bars = [axes.transData.transform([(p.latency_ms, end) for end in p.interval]) for p in points]
    lines = [line.get_transform().transform(line.get_xydata()) for line in axes.lines]
    return [Bbox(ends).padded(3) for ends in (*bars, *lines)]


Place = tuple[float, float]


def _places(text: Annotation, radius: float) -> Iterator[tuple[Place, Bbox]]:
    """Offsets in points to try, the nearest first, and what the text covers there."""
    for distance, (x, y) in product(DISTANCES, ((1, 0), (0, 1), (-1, 0), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))):
        place = ((radius + distance) * x, (radius + distance) * y)
        _move(text, place)
        yield place, text.get_window_extent()


def _move(text: Annotation, place: Place) -> None:
    """Put the text's near edge at an offset from its marker."""
    x, y = place
    text.set_position(place)
    text.set_horizontalalignment("left" if x > 0 else "right" if x < 0 else "center")
    text.set_verticalalignment("bottom" if y > 0 else "top" if y < 0 else "center")


def _overlap(box: Bbox, taken: Sequence[Bbox], page: Bbox) -> float:
    """Pixels of a text that lie on something else or outside the axes."""
    from matplotlib.transforms import Bbox

    inside = Bbox.intersection(box, page)
    outside = box.width * box.height - (inside.width * inside.height if inside else 0.0)
    shared = (Bbox.intersection(box, other) for other in taken)
    return float(outside + sum(each.width * each.height for each in shared if each))
