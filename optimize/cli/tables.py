"""The tables that commands print on stdout, through rich."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from optimize.cli.verbosity import is_quiet

if TYPE_CHECKING:
    from pathlib import Path

    from rich.table import Table

    from optimize.bench import Benchmark
    from optimize.cli.keeping import Kept
    from optimize.cli.names import Document
    from optimize.compared import Comparison, Regression
    from optimize.config import Pipeline, Step
    from optimize.manifest import Manifest
    from optimize.planning import Plan
    from optimize.sweep.sweeping import Planned
    from optimize.swept import Swept, Trial

# Where stdout is a file or a pipe, there is no terminal to ask for its width; tables of a run fit into this.
PIPED_WIDTH = 160
COLOURS = {"passed": "green", "failed": "red", "unverified": "yellow"}


def show_run(folder: Path, manifest: Manifest) -> None:
    """The verdict: a table of all measured models, the gates, and where the run lies."""
    from rich.markup import escape

    if is_quiet():
        _print_verdict(folder, manifest)
        return
    # The report's tables import what reads manifests, which a quiet run can do without.
    from optimize.report.candidates import candidate_rows
    from optimize.report.facts import in_short
    from optimize.report.tables import model_rows

    request = manifest.request
    if manifest.candidates:
        header, *rows = candidate_rows(manifest)
        _print(_table("candidates, compared on tuning data", header, rows))
    if manifest.measurements:
        header, *rows = model_rows(manifest)
        _print(_table(f"{request.head} on {request.target}, {request.model}", header, rows))
    else:
        _print(f"built, not measured; certify it with: optimize certify {escape(str(folder))}")
    for check in manifest.verdict.checks:
        _print(f"  [{COLOURS[check.outcome]}]{check.outcome:10}[/] {check.name}: {escape(check.reason)}")
    stages = ", ".join(f"{record.stage}{' (cached)' if record.cached else ''}" for record in manifest.stages)
    _print(f"stages: {stages}")
    for record in manifest.stages:
        if found := in_short(record):
            _print(f"  {record.stage}: {escape(found)}")
    _print_verdict(folder, manifest)


def _print_verdict(folder: Path, manifest: Manifest) -> None:
    from rich.markup import escape

    outcome = manifest.verdict.outcome
    _print(f"[{COLOURS[outcome]} bold]{outcome}[/]  {escape(str(folder))}/report.html")


def show_overview(manifests: Sequence[Manifest]) -> None:
    """One line a head, after a run over several."""
    from optimize.report.tables import overview_rows

    header, *rows = overview_rows(manifests)
    _print(_table("all heads", header, rows))


def show_sweep(folder: Path, swept: Swept) -> None:
    """The points of each model and target, what failed, and what was certified."""
    from rich.markup import escape

    from optimize.report import sweeps

    if not is_quiet():
        for group, trials in sweeps.groups_of(swept).items():
            header, *rows = sweeps.trial_rows(trials)
            _print(_table(sweeps.title_of(group, swept), header, rows))
        header, *rows = sweeps.failed_rows(swept)
        if rows:
            _print(_table("not measured", header, rows))
        for line in sweeps.chosen_words(swept):
            _print(escape(line))
    _print(f"{sweeps.counts(swept)}  {escape(str(folder))}/sweep.html")


def show_points(planned: Planned) -> None:
    """What a sweep would try, and what of it cannot be carried out here."""
    rows = []
    for point in planned.points:
        rows.append((point.model, point.form.target, point.label, planned.refused.get(point.id, "")))
    if rows:
        _print(_table("points", ("model", "target", "point", "cannot be carried out"), rows))
    elif planned.matrix.search is not None:
        _print(f"a search chooses up to {planned.matrix.search.trials} points for each model and target")
    _print(f"{len(rows):,} points, {len(planned.refused):,} of them cannot be carried out")


def show_pick(trial: Trial, folder: Path) -> None:
    """The point to publish, in words, and the command that does it."""
    from rich.markup import escape

    from optimize.report.sweeps import in_words

    _print(escape(f"{trial.model} on {trial.target}: {in_words(trial)}"))
    if trial.verdict is not None:
        _print(f"[{COLOURS[trial.verdict]} bold]{trial.verdict}[/] on certification data  {escape(str(folder))}")
    if trial.verdict == "passed":
        _print(f"publish it with: optimize publish {escape(str(folder))} DESTINATION")


def show_comparison(comparison: Comparison) -> None:
    """Runs side by side, and why cells have no number."""
    from rich.markup import escape

    from optimize.report.comparisons import notes, pair_rows, run_rows

    for title, (header, *rows) in (
        ("runs", run_rows(comparison)),
        ("beside A", pair_rows(comparison)),
    ):
        _print(_table(title, header, rows))
    for note in notes(comparison):
        _print(escape(note))


def show_regression(folder: Path, regression: Regression) -> None:
    """What got worse since the accepted run, each with where it came from; all numbers where nobody wants quiet."""
    from rich.markup import escape

    from optimize.report.regressions import change_rows, why

    outcome = regression.outcome
    if not is_quiet():
        header, *rows = change_rows(regression)
        # What did not get worse needs no reason here; the page has it.
        _print(
            _table(f"{regression.run.name} beside {regression.baseline.name}", header[:-1], [row[:-1] for row in rows])
        )
        for each in regression.changes:
            if each.outcome != "passed":
                _print(f"  [{COLOURS[each.outcome]}]{each.outcome:10}[/] {each.name}: {escape(why(each))}")
    _print(f"[{COLOURS[outcome]} bold]{outcome}[/]  {escape(str(folder))}/regression.json")


def show_bench(found: Benchmark) -> None:
    """Latency, size and memory of models with random weights, and what else was measured with them."""
    from rich.markup import escape

    from optimize.report.tables import calibration_rows, latency_rows, limit_rows, weight_rows

    measurements = found.measurements
    for title, (header, *rows) in (
        ("median ms at batch x tokens (ratio to pytorch-fp32)", latency_rows(measurements)),
        ("the same on the device alone", latency_rows(measurements, on_device=True)),
        ("size and memory", weight_rows(measurements)),
    ):
        if rows:
            _print(_table(title, header, rows))
    if found.peaks:
        header, *rows = limit_rows(measurements, found.peaks, found.operations)
        _print(_table("ms that the encoder's products take at the speed of this machine's fastest one", header, rows))
    if found.calibration:
        header, *rows = calibration_rows(found.calibration)
        _print(_table("calibration of the FP32 graph, on texts of 128 tokens", header, rows))
    for name, reason in found.left_out.items():
        _print(f"{name}: not measured: {escape(reason)}")
    _print("random weights at distilbert-base's geometry: accuracy means nothing here and is not measured")


def show_plan(plan: Plan) -> None:
    """What `run` would do."""
    from optimize.foresight import foresee
    from optimize.targets import TARGETS

    request = plan.request
    added = f" ({plan.added_shape} for the limit on the speed-up)" if plan.added_shape else ""
    rows = [
        ("model", f"{request.model} ({plan.found.kind})" + (f" at {request.revision}" if request.revision else "")),
        ("head", request.head),
        ("target", "; ".join(f"{name}: {TARGETS[name].summary}" for name in plan.targets)),
        ("data", f"{request.data}, at most {request.examples} examples certify"),
        ("latency", f"{', '.join(request.shapes)} with {request.threads} threads{added}"),
    ]
    for number, step in enumerate(plan.pipeline.stages, 1):
        rows.append((f"stage {number}", _step(step)))
    if search := plan.pipeline.search:
        budgets = ", ".join(f"{each:.0%}" for each in search.budgets)
        rows.append(("search", f"at most {search.minutes:g} min of building; keeps {budgets} of the encoder"))
    for candidate in plan.candidates:
        rows.append(("candidate", f"{candidate.name}: {_stages(candidate)}"))
    for name, reason in plan.left_out.items():
        rows.append(("left out", f"{name}: {reason}"))
    rows.append(("gates", ", ".join(f"{name} {value}" for name, value in request.gates.items()) or "none"))
    if foreseen := foresee(plan.pipeline.gates, request.examples):
        rows.append(("decides", foreseen))
    rows.append(("cache", _cache(plan.cache)))
    _print(_table(f"plan {request.pipeline}", ("what", "value"), rows))


def _cache(root: Path) -> str:
    from optimize.cache import address_of, shown

    address = address_of(root)
    return f"{shown(address)}, copied to {root}" if address else str(root)


def _step(step: Step) -> str:
    """A stage with those of its parameters that are not the defaults; a table of all twenty would hide those."""
    from optimize.request import write_setting

    params = step.params.model_dump(mode="json", exclude_defaults=True)
    return f"{step.stage}: {write_setting(params)}" if params else step.stage


def show_names(found: Mapping[str, Sequence[Document]]) -> None:
    """All names that a request may use."""
    for title, (header, row_of) in NAMES.items():
        rows = [row_of(each) for each in found[title]]
        if title == "pipelines":
            # `auto` is not a file, but the user names it like one.
            rows += [_auto_row(each) for each in found[title] if each["candidates"] and not each["search"]]
        _print(_table(title, header, rows))
    _print("optimize show NAME says more of each")


def _target_row(each: Document) -> tuple[str, ...]:
    return each["target"], each["summary"], ", ".join(setting["name"] for setting in each["parameters"])


def _head_row(each: Document) -> tuple[str, ...]:
    return each["head"], each["summary"], each["metric"], ", ".join(each["columns"])


def _stage_row(each: Document) -> tuple[str, ...]:
    return each["stage"], f"{each['takes']} to {each['gives']}", each["summary"]


def _pipeline_row(each: Document) -> tuple[str, ...]:
    if each["search"]:
        return each["pipeline"], each["target"], f"a search, then one of {', '.join(each['candidates'])}"
    # A step is a mapping from its stage's name, which alone is shown, to parameters.
    return each["pipeline"], each["target"], " > ".join(next(iter(step)) for step in each["stages"])


def _auto_row(each: Document) -> tuple[str, ...]:
    return "auto", each["target"], f"the fastest that meets its limits: {', '.join(each['candidates'])}"


NAMES: dict[str, tuple[tuple[str, ...], Callable[[Document], tuple[str, ...]]]] = {
    "targets": (("name", "what", "runtime settings"), _target_row),
    "heads": (("name", "what", "metric", "columns"), _head_row),
    "stages": (("name", "kind", "what"), _stage_row),
    "pipelines": (("name", "target", "stages"), _pipeline_row),
}
"""For each kind of names the header of its table, and what makes a row."""


def _stages(pipeline: Pipeline) -> str:
    if not pipeline.stages:
        return f"the fastest that meets its limits: {', '.join(pipeline.candidates)}"
    return " > ".join(step.stage for step in pipeline.stages)


def _allowance(machine: Document) -> list[tuple[str, str]]:
    """What a container has of the machine; nothing where it has all of it."""
    rows = []
    if machine["cpu_quota"] is not None:
        rows.append(("quota", f"{machine['cpu_quota']:g} cores' worth of time"))
    if machine["memory_limit_bytes"] is not None:
        rows.append(("memory limit", f"{machine['memory_limit_bytes'] / 2**30:.1f} GiB"))
    return rows


def show_machine(found: Document) -> None:
    """This machine and what runs on it."""
    machine = found["machine"]
    rows = [
        ("cpu", f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_bytes'] / 2**30:.0f} GiB"),
        *_allowance(machine),
        ("features", ", ".join(machine["features"]) or "none known"),
        ("gpu", machine["gpu"] or "none"),  # NVIDIA's alone: OpenVINO's are among what its target says
        ("system", machine["system"]),
        *machine["versions"].items(),
    ]
    _print(_table("machine", ("what", "value"), rows))
    targets = [(each["name"], each["reason"] or _runs(each["device"])) for each in found["targets"]]
    _print(_table("targets", ("name", "runs here"), targets))


def show_entries(title: str, entries: Sequence[Kept], age: str) -> None:
    """What a cache holds; `age` says since when entries are of their age."""
    rows, total = [], 0
    for each in entries:
        total += each.size_bytes
        rows.append((each.key[:12], each.stage, each.head, _megabytes(each.size_bytes), _ago(each.age_seconds)))
    _print(_table(title, ("key", "stage", "head", "size", age), rows))
    _print(f"{len(entries)} entries, {_megabytes(total)}")


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.1f} MB"  # as disks are sold and `ls` counts, not in MiB


def _ago(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:  # "1 days" is never said, and 90 minutes are told from 60
            return f"{seconds / size:.0f} {unit} ago"
    return "just now"


def _runs(device: Mapping[str, str]) -> str:
    return ", ".join(["yes", *(f"{what.replace('_', ' ')}: {value}" for what, value in device.items())])


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title), title_justify="left")
    for name in header:
        table.add_column(escape(name), overflow="fold")
    for row in rows:
        table.add_row(*(escape(str(cell)) for cell in row))
    return table


def _print(what: object) -> None:
    from rich.console import Console

    width = None if sys.stdout.isatty() else PIPED_WIDTH
    # rich would colour every number and path that it finds; colours are for verdicts alone.
    Console(width=width, highlight=False).print(what)
