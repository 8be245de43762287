"""A picture of a run: each model's accuracy against its latency, with the limits that it must meet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from optimize.manifest import Manifest, Measurement, Metric
from optimize.report.pictures import canvas
from optimize.report.tables import REFERENCE, UNRELIABLE, at_shape, judged_shape, megabytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

HEIGHT_INCHES = 4.6
LARGEST_AREA = 420.0
"""Points squared of the largest model's marker."""
HELD = {"estimate": "", "not_worse": ", some of its interval", "proven": ", its whole interval"}
"""What of an interval a limit on the metric is held against, by the rule."""
DISTANCES = (4, 12, 22, 34, 48, 64, 82)
"""Points between a marker and its label, in the order in which they are tried."""
Place = tuple[float, float]
"""An offset from a marker, in points."""


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


def points_of(manifest: Manifest) -> list[Point]:
    """The models of which both accuracy and latency at the judged shape were measured, each model once."""
    found: dict[tuple[str, str], Point] = {}
    for measurement in manifest.measurements:
        metric, latency = measurement.metric, at_shape(measurement, judged_shape(manifest))
        if metric is None or latency is None:
            continue
        earlier = found.get(measurement.subject)
        least, most = metric.interval
        found[measurement.subject] = Point(
            names=(*earlier.names, measurement.name) if earlier else (measurement.name,),
            latency_ms=latency.p50_ms,
            metric=metric.value,
            interval=(metric.reference - most, metric.reference - least),  # of the score; the manifest's is of the drop
            size_bytes=measurement.size.bytes,
            speedup=latency.speedup.get(REFERENCE),
        )
    return list(found.values())


def draw_overview(manifest: Manifest, *, title: str) -> bytes | None:
    """A PNG with a marker for each model; None where fewer than two have both measurements."""
    points = points_of(manifest)
    if len(points) < 2:
        return None
    last = manifest.measurements[-1].name
    metric = _reference_metric(manifest)

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        _mark(axes, points, last)
        _limits(axes, manifest)
        _frame(axes, points)
        axes.set_xlabel(f"median ms at {_shape(manifest)} (lower is better)")
        axes.set_ylabel(f"{metric.name} on {metric.examples:,} examples (higher is better)")
        canvas.write_title(figure, title)
        handles = _key(axes, metric.confidence)
        figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
        _label(figure, axes, points, last)

    return canvas.draw_png(HEIGHT_INCHES, paint)


def _shape(manifest: Manifest) -> str:
    """The shape at which models are compared, and that its times are not reliable, if they are not."""
    shape = judged_shape(manifest)
    times = [at_shape(each, shape) for each in manifest.measurements]
    doubt = f", {UNRELIABLE}" if any(each.unreliable for each in times if each) else ""
    return f"{shape}, batch x tokens{doubt}"


def _colour(point: Point, last: str) -> str:
    if REFERENCE in point.names:
        return canvas.GREY
    return canvas.VERMILION if last in point.names else canvas.BLUE


def _radii(points: Sequence[Point]) -> list[float]:
    """Of the markers, in points of 1/72 inch; their areas are in proportion to the models' sizes."""
    largest = max(point.size_bytes for point in points)
    return [float((LARGEST_AREA * point.size_bytes / largest) ** 0.5 / 2) for point in points]


def _mark(axes: Axes, points: Sequence[Point], last: str) -> None:
    """Large markers first, so that small ones lie on top."""
    sizes = zip(points, _radii(points), strict=True)
    for point, radius in sorted(sizes, key=lambda pair: -pair[1]):
        colour, area = _colour(point, last), (2 * radius) ** 2
        axes.vlines(point.latency_ms, *point.interval, color=colour, linewidth=1.5)
        axes.scatter(point.latency_ms, point.metric, s=area, color=colour, edgecolor="white", linewidth=1.0, zorder=3)


def _limits(axes: Axes, manifest: Manifest) -> None:
    """Lines at the limits on accuracy and speed that the last model must meet."""
    gates = manifest.request.gates
    least, most = least_metric(manifest), most_latency_ms(manifest)
    sure = HELD["proven"] if gates.get("rule") == "proven" else ""
    if least is not None:
        label = f"limit: {least:.4f} or more{HELD[gates.get('rule', 'estimate')]}"
        axes.axhline(least, color=canvas.INK, linewidth=1.0, linestyle="--", label=label)
    if most is not None:
        label = f"limit: {gates['min_speedup']:g}× the speed of {gates.get('speedup_over', REFERENCE)}{sure}"
        axes.axvline(most, color=canvas.INK, linewidth=1.0, linestyle=":", label=label)


def most_latency_ms(manifest: Manifest) -> float | None:
    """The median at the judged shape that is as fast as the limit asks for; None where none is set, or was measured."""
    gates = manifest.request.gates
    compared = _measurement(manifest, str(gates.get("speedup_over", REFERENCE)))
    slow = at_shape(compared, judged_shape(manifest)) if compared else None
    return slow.p50_ms / gates["min_speedup"] if gates.get("min_speedup") and slow else None


def _measurement(manifest: Manifest, name: str) -> Measurement | None:
    return next((each for each in manifest.measurements if each.name == name), None)


def _reference_metric(manifest: Manifest) -> Metric:
    """The metric of the first model that has one; reference and examples are the same for all."""
    return next(each.metric for each in manifest.measurements if each.metric)


def least_metric(manifest: Manifest) -> float | None:
    """The lowest score within both limits on the metric; None where neither is set."""
    gates = manifest.request.gates
    reference = _reference_metric(manifest).reference
    absolute, relative = gates.get("max_metric_drop"), gates.get("max_relative_metric_drop")
    scores = []
    if absolute is not None:
        scores.append(reference - absolute)
    if relative is not None:
        scores.append(reference - relative * abs(reference))  # a correlation may be negative
    return max(scores, default=None)


def _frame(axes: Axes, points: Sequence[Point]) -> None:
    canvas.clear_frame(axes)
    axes.grid(color=canvas.PALE, linewidth=0.8)
    axes.margins(y=0.2)
    axes.set_xlim(0.0, 1.15 * max(point.latency_ms for point in points))


def _key(axes: Axes, confidence: float) -> list[Line2D]:
    """What markers, bars and lines mean."""
    from matplotlib.lines import Line2D

    result = Line2D([], [], color=canvas.VERMILION, linestyle="none", marker="o", markersize=7.0)
    result.set_label("the result (marker area: size of the file)")
    # Matplotlib gives a line that nobody named a label with an underscore.
    lines = [line for line in axes.lines if not str(line.get_label()).startswith("_")]
    return [
        result,
        Line2D([], [], color=canvas.GREY, label=f"{confidence:.0%} interval of the difference to {REFERENCE}"),
        *lines,
    ]


def _label(figure: Figure, axes: Axes, points: Sequence[Point], last: str) -> None:
    """Write each model's name where it covers nothing, at the nearest such place."""
    figure.draw_without_rendering()  # only now it is known what lies where
    radii = _radii(points)
    taken = _lines(axes, points)
    for point, radius in zip(points, radii, strict=True):
        taken.append(_extent(axes, point, radius + 1))
    for point, radius in zip(points, radii, strict=True):
        text = _write(axes, point, bold=last in point.names)
        place, box = min(_places(text, radius), key=lambda tried: _overlap(tried[1], taken, axes.bbox))
        _move(text, place)
        taken.append(box)
        if max(map(abs, place)) > radius + DISTANCES[0]:
            _lead(axes, point, place, radius)


def _write(axes: Axes, point: Point, *, bold: bool) -> Annotation:
    """Write a model's name on its marker, from where it is moved."""
    text = axes.annotate(
        point.text,
        (point.latency_ms, point.metric),
        xytext=(0, 0),
        textcoords="offset points",
        fontsize=8.5,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5},
        zorder=2,
        fontweight="bold" if bold else "normal",
    )
    # The layout would shrink the axes for a text at their edge, and all places found so far would be wrong.
    text.set_in_layout(False)
    return text


def _lead(axes: Axes, point: Point, place: Place, radius: float) -> None:
    """Draw a thin line from a name that is far away to its marker."""
    line = {"arrowstyle": "-", "color": canvas.GREY, "linewidth": 0.6, "shrinkA": 0, "shrinkB": radius}
    at = (point.latency_ms, point.metric)
    axes.annotate("", at, xytext=place, textcoords="offset points", arrowprops=line).set_in_layout(False)


def _extent(axes: Axes, point: Point, radius: float) -> Bbox:
    """What a marker covers, in pixels."""
    from matplotlib.transforms import Bbox

    x, y = axes.transData.transform((point.latency_ms, point.metric))
    pixels = radius * canvas.DOTS_PER_INCH / 72  # points are 1/72 inch
    return Bbox.from_extents(x - pixels, y - pixels, x + pixels, y + pixels)


def _lines(axes: Axes, points: Sequence[Point]) -> list[Bbox]:
    """What intervals and limits cover, in pixels."""
    from matplotlib.transforms import Bbox

    boxes = []
    for point in points:
        low, high = point.interval
        ends = axes.transData.transform([(point.latency_ms, low), (point.latency_ms, high)])
        boxes.append(Bbox(ends).padded(3))
    for line in axes.lines:
        # A limit's line spans the axes in one direction, and has coordinates of its own for that.
        boxes.append(Bbox(line.get_transform().transform(line.get_xydata())).padded(3))
    return boxes


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
    covered = box.width * box.height - _shared(box, page)
    for other in taken:
        covered += _shared(box, other)
    return covered


def _shared(box: Bbox, other: Bbox) -> float:
    from matplotlib.transforms import Bbox

    shared = Bbox.intersection(box, other)
    return float(shared.width * shared.height) if shared else 0.0
