"""A sweep's page: what each point loses, against how fast it is, for each model, target and machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from markupsafe import Markup

from optimize.report import sweeps
from optimize.report.html.charts import BETWEEN, HUES, MUTED, ORIGINAL, RESULT, Spec, chart, rows, words
from optimize.report.html.frame import fill
from optimize.report.html.parts import Section, Table
from optimize.report.tables import Rows
from optimize.swept import Swept, Trial

HEIGHT = 320
SURE, DOUBTFUL = 0.9, 0.4
"""How opaque marks are."""
LEAST_SPAN = 1e-3
"""Of drops, above the largest and below the smallest."""
COLOURS = {
    sweeps.CHOSEN: HUES[4],
    sweeps.FRONT: RESULT,
    sweeps.BEATEN: BETWEEN,
    sweeps.OPEN: HUES[2],
    sweeps.MISSES: ORIGINAL,
}
ABOUT = (
    "Each point is one model, measured on tuning data: further right is faster, lower loses less, and a larger mark is "
    "a larger file. The line joins those that no other beats in drop and speed. Pale ones were timed on a busy "
    "machine. The chosen one was certified on other data."
)


def render_sweep(swept: Swept) -> str:
    """The whole page; the same page for the same record."""
    sections = [each for each in (_certified(swept),) if not each.is_empty]
    sections += [section(group, trials, swept) for group, trials in sweeps.groups_of(swept).items()]
    failed = sweeps.failed_rows(swept)
    if len(failed) > 1:
        about = "Points that could not be built or measured, or that were left out, with the reason."
        sections.append(Section("failed", "Not measured", about, tables=[Table("Points", failed, words=5)]))
    return fill(
        "sweep.html.jinja",
        title=f"sweep {swept.name}, {swept.created[:16].replace('T', ' ')}",
        headline=sweeps.counts(swept),
        unfinished=not swept.finished,
        about=ABOUT,
        sections=[*sections, machines(swept)],
        command=f"optimize sweep {swept.name}.yaml",
    )


def _certified(swept: Swept) -> Section:
    """What was chosen, with a link to each report; empty where nothing was."""
    header, *body = sweeps.certified_rows(swept)
    if not body:
        return Section("certified", "Certified")
    runs = [trial.run for trial in swept.trials if trial.run is not None]
    link = Markup('<a href="runs/{}/report.html">{}</a>')
    linked = [(*row[:3], link.format(run, row[3]), *row[4:]) for row, run in zip(body, runs, strict=True)]
    about = (
        "The best point of each model and target by its limits. Drop, speed and size are from tuning data, by which it "
        "was chosen; the verdict is from data that nothing was chosen by, and leads to the report."
    )
    return Section("certified", "Certified", about, tables=[Table("Chosen points", [header, *linked], words=4)])


def section(group: sweeps.Group, trials: Sequence[Trial], swept: Swept) -> Section:
    """A model on a target: the picture and the table of its points."""
    title = sweeps.title_of(group, swept)
    said = "; ".join(sweeps.in_words(trial) for trial in trials if trial.on_front)
    caption = "What is lost, against how fast it is"
    timed = [trial for trial in trials if trial.speedup is not None and trial.relative_drop is not None]
    charts = []
    if len(timed) > 1:  # one alone says nothing that its row does not
        charts.append(chart(caption, f"{title}: {said}", lambda width: _spec(timed, width), wide=True))
    tables = [Table("Points", sweeps.trial_rows(trials), words=2)]
    unmet = sweeps.unmet_rows(trials)
    if len(unmet) > 1:
        tables.append(Table("Limits that are not met on tuning data", unmet, words=4, folded=True))
    place = "-".join(group).lower().replace(" ", "-")
    return Section(place, title, charts=charts, tables=tables)


def _spec(trials: Sequence[Trial], width: int) -> Spec:
    values = [
        {
            "speed": trial.speedup,
            "drop": trial.relative_drop,
            "size": trial.size_ratio,
            "standing": sweeps.standing_of(trial),
            "ink": DOUBTFUL if trial.is_doubtful else SURE,
            "words": sweeps.in_words(trial),
        }
        for trial in trials
    ]
    known = [each for each in COLOURS if any(each == value["standing"] for value in values)]
    x: Spec = {"field": "speed", "type": "quantitative", "title": f"times as fast as FP32 at {trials[0].shape}"}
    x |= {"axis": {"grid": False, "tickCount": 6}, "scale": {"zero": False, "padding": 24}}
    y: Spec = {"field": "drop", "type": "quantitative", "title": "relative drop on tuning data"}
    drops = [trial.relative_drop or 0.0 for trial in trials]
    ends = [min(drops) - LEAST_SPAN, max(drops) + LEAST_SPAN]  # what differs by less looks alike, as it should
    y |= {"axis": {"format": "+.2%", "tickCount": 6}, "scale": {"domain": ends, "nice": False}}
    colour: Spec = {"field": "standing", "type": "nominal", "title": None, "sort": known}
    colour |= {"scale": {"domain": known, "range": [COLOURS[each] for each in known]}}
    size: Spec = {"field": "size", "type": "quantitative", "legend": None}
    size |= {"scale": {"domain": [0, 1], "range": [40, 520]}}
    ink: Spec = {"field": "ink", "type": "quantitative", "scale": None, "legend": None}
    marks: Spec = {"mark": {"type": "circle"}, "data": rows(*values)}
    marks |= {"encoding": {"x": x, "y": y, "color": colour, "size": size, "opacity": ink, "description": words()}}
    line: Spec = {"mark": {"type": "line", "color": MUTED, "strokeWidth": 1}, "data": rows(*staircase(values))}
    line |= {"encoding": {"x": x, "y": y}}
    return {"width": width, "height": HEIGHT, "layer": [line, marks]}


def staircase(values: Sequence[Spec]) -> list[Spec]:
    """Those that no other beats in drop and speed, from the fastest on."""
    found: list[Spec] = []
    for value in sorted(values, key=lambda each: (-each["speed"], each["drop"])):
        if not found or value["drop"] < found[-1]["drop"]:
            found.append({"speed": value["speed"], "drop": value["drop"]})
    return found


def machines(swept: Swept) -> Section:
    """Where it was measured."""
    table: Rows = [("machine", "processor", "cores", "features", "system")]
    table += [tuple(_machine(key, swept)) for key in swept.environments]
    about = "Times of unlike machines are never held against each other."
    return Section("machines", "Where it was measured", about, tables=[Table("Machines", table, words=5)])


def _machine(key: str, swept: Swept) -> Iterator[str]:
    each = swept.environments[key]
    yield from (key, each.gpu or each.cpu, str(each.cores), ", ".join(each.features), each.system)
