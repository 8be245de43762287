"""What the command line shows: progress on stderr, tables on stdout, through rich."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from rich.table import Table

    from optimize.config import Pipeline
    from optimize.manifest import Manifest, Measurement
    from optimize.measure.calibration_memory import Row
    from optimize.planning import Plan

COLOURS = {"passed": "green", "failed": "red", "unverified": "yellow"}


def show_run(folder: Path, manifest: Manifest) -> None:
    """The verdict: a table of all measured models, the gates, and where the run lies."""
    from rich.markup import escape

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
        _print(f"built, not measured; certify it with: optimize check {escape(str(folder))}")
    for check in manifest.verdict.checks:
        _print(f"  [{COLOURS[check.outcome]}]{check.outcome:10}[/] {check.name}: {escape(check.reason)}")
    stages = ", ".join(f"{record.stage}{' (cached)' if record.cached else ''}" for record in manifest.stages)
    _print(f"stages: {stages}")
    for record in manifest.stages:
        if found := in_short(record):
            _print(f"  {record.stage}: {escape(found)}")
    _print(f"[{COLOURS[manifest.verdict.outcome]} bold]{manifest.verdict.outcome}[/]  {escape(str(folder))}/report.md")


def show_overview(manifests: Sequence[Manifest]) -> None:
    """One line a head, after a run over several."""
    from optimize.report.tables import overview_rows

    header, *rows = overview_rows(manifests)
    _print(_table("all heads", header, rows))


def show_bench(measurements: Sequence[Measurement], calibration: Sequence[Row] = ()) -> None:
    """Latency, size and memory of models with random weights, and what calibrators took where that was measured."""
    from optimize.report.tables import calibration_rows, latency_rows, weight_rows

    for title, (header, *rows) in (
        ("median ms at batch x tokens (ratio to pytorch-fp32)", latency_rows(measurements)),
        ("the same on the device alone", latency_rows(measurements, on_device=True)),
        ("size and memory", weight_rows(measurements)),
    ):
        if rows:
            _print(_table(title, header, rows))
    if calibration:
        header, *rows = calibration_rows(calibration)
        _print(_table("calibration of the FP32 graph, on texts of 128 tokens", header, rows))
    _print("random weights at distilbert-base's geometry: accuracy means nothing here and is not measured")


def show_plan(plan: Plan) -> None:
    """What `run` would do."""
    request = plan.request
    rows = [
        ("model", f"{request.model} ({plan.found.kind})" + (f" at {request.revision}" if request.revision else "")),
        ("head", request.head),
        ("target", f"{request.target}: {plan.target.summary}"),
        ("data", f"{request.data}, at most {request.examples} examples certify"),
        ("latency", f"{', '.join(request.shapes)} with {request.threads} threads"),
        *((f"stage {i}", f"{step.stage} {step.params.model_dump()}") for i, step in enumerate(plan.pipeline.stages, 1)),
        *(("candidate", f"{each.name}: {_stages(each)}") for each in plan.candidates),
        *(("left out", f"{name}: {reason}") for name, reason in plan.left_out.items()),
        ("gates", ", ".join(f"{name} {value}" for name, value in request.gates.items()) or "none"),
        ("cache", str(plan.cache)),
    ]
    _print(_table(f"plan {request.pipeline}", ("what", "value"), rows))


def show_tables() -> None:
    """All names that a request may use."""
    from optimize.config import load_pipeline, shipped_pipelines
    from optimize.heads import HEADS
    from optimize.planning import AUTO
    from optimize.stages import STAGES
    from optimize.targets import TARGETS

    targets = [(name, target.summary, ", ".join(target.runtime.model_fields)) for name, target in TARGETS.items()]
    _print(_table("targets", ("name", "what", "runtime settings"), targets))
    heads = [(name, head.architecture, head.metric) for name, head in HEADS.items()]
    _print(_table("heads", ("name", "class", "metric"), heads))
    stages = [
        (name, f"{stage.takes} to {stage.gives}", stage.summary, ", ".join(stage.params.model_fields))
        for name, stage in STAGES.items()
    ]
    _print(_table("stages", ("name", "kind", "what", "parameters"), stages))
    loaded = {name: load_pipeline(name) for name in shipped_pipelines()}
    pipelines = [(each.name, each.target, _stages(each)) for each in loaded.values()]
    chosen = [replace(loaded[name], name=AUTO, stages=()) for name in TARGETS if loaded[name].candidates]
    pipelines += [(each.name, each.target, _stages(each)) for each in chosen]
    _print(_table("pipelines", ("name", "target", "stages"), pipelines))


def _stages(pipeline: Pipeline) -> str:
    if not pipeline.stages:
        return f"the fastest that meets its limits: {', '.join(pipeline.candidates)}"
    return " > ".join(step.stage for step in pipeline.stages)


def show_doctor() -> bool:
    """This machine and what runs on it; False if no target does."""
    from optimize.environment import detect
    from optimize.targets import TARGETS

    machine = detect()
    rows = [
        ("cpu", f"{machine.cpu}, {machine.cores} cores, {machine.memory_bytes / 2**30:.0f} GiB"),
        ("features", ", ".join(machine.features) or "none known"),
        ("gpu", machine.gpu or "none"),
        ("system", machine.system),
        *((name, version) for name, version in machine.versions.items()),
    ]
    _print(_table("machine", ("what", "value"), rows))
    reasons = {name: target.unavailable(target.runtime()) for name, target in TARGETS.items()}
    found = {name: TARGETS[name].describe(TARGETS[name].runtime()) for name, reason in reasons.items() if not reason}
    targets = [(name, reason or _runs(found[name])) for name, reason in reasons.items()]
    _print(_table("targets", ("name", "runs here"), targets))
    return None in reasons.values()


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

    width = None if sys.stdout.isatty() else 160
    Console(width=width, highlight=False).print(what)
