"""The page itself: what a manifest and the files beside it say, put into the template."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from optimize.compared import Regression
from optimize.manifest import Manifest
from optimize.report import regressions
from optimize.report.facts import cell, column_title
from optimize.report.html import calibration, drift, latency, layers, overview, search, sizes
from optimize.report.html.evidence import Evidence
from optimize.report.html.flips import KINDS, Flips, flips_of
from optimize.report.html.frame import fill
from optimize.report.html.parts import Section, Table
from optimize.report.html.wording import ADVICE, headline, limits, summary, tiles
from optimize.report.page import command
from optimize.report.tables import MISSING, REFERENCE, Rows

NO_FLIPS = "No answer changed."
KEPT_NO_TEXTS = "The data's texts were kept out of this run, so the examples are shown without them."


def render_html(manifest: Manifest, evidence: Evidence) -> str:
    """The whole page; the same page for the same manifest and evidence."""
    metric = manifest.measurements[-1].metric if manifest.measurements else None
    numbers = metric is not None and metric.name == "spearman"
    flips = flips_of(evidence.examples, numbers=numbers)
    sections = [each for each in _sections(manifest, evidence, numbers=numbers) if not each.is_empty]
    return fill(
        "report.html.jinja",
        manifest=manifest,
        title=f"{manifest.request.head} on {manifest.request.target}: {manifest.source.id}",
        headline=headline(manifest),
        advice=ADVICE[manifest.verdict.outcome],
        summary=summary(manifest),
        tiles=list(tiles(manifest)),
        limits=limits(manifest),
        sections=sections,
        flips=flips,
        kinds=KINDS,
        has_examples=bool(evidence.examples),
        flips_note=_flips_note(manifest, evidence, flips),
        closing=[_made(manifest), *_where(manifest)],
        command=command(manifest.request, chosen=bool(manifest.candidates)),
    )


def _sections(manifest: Manifest, evidence: Evidence, *, numbers: bool) -> Iterator[Section]:
    """What lies between the verdict and the examples."""
    if evidence.regression is not None:
        yield _since(evidence.regression)
    if manifest.measurements:
        yield overview.section(manifest)
        yield search.section(manifest)
        yield latency.section(manifest, evidence)
        yield sizes.section(manifest)
    yield layers.section(manifest)
    if manifest.measurements:
        yield drift.section(manifest, evidence, numbers=numbers)
        yield calibration.section(evidence, manifest.measurements[-1].name)
        yield _classes(manifest)


def _since(regression: Regression) -> Section:
    """What got worse since the last accepted run."""
    about = f"{regressions.OUTCOMES[regression.outcome]}. {regressions.how_compared(regression)}"
    tables = [Table("What was compared", regressions.change_rows(regression))]
    return Section("since", regressions.TITLE, about, tables=tables, missing=regressions.environments(regression))


def _classes(manifest: Manifest) -> Section:
    """F1 of each class, the largest drops first."""
    last = manifest.measurements[-1]
    if last.metric is None or not last.metric.classes:
        return Section("classes", "Classes")
    table: Rows = [("class", "right answers", REFERENCE, last.name, "drop", "interval of the drop")]
    for each in sorted(last.metric.classes, key=lambda each: (-each.drop, each.support)):
        low, high = each.interval
        scores = f"{each.reference:.4f}", f"{each.value:.4f}", f"{each.drop:+.4f}"
        table.append((each.name, f"{each.support:,}", *scores, f"{low:+.4f} to {high:+.4f}"))
    about = "F1 of each class or type of entity, the largest losses first. Of few right answers, a loss may be chance."
    return Section("classes", "Classes", about, tables=[Table("F1 by class", table)])


def _flips_note(manifest: Manifest, evidence: Evidence, flips: Flips) -> str:
    if not evidence.examples:
        return drift.NOT_KEPT
    if not flips.total:
        return NO_FLIPS
    left = f" {flips.left_out:,} more are in the run's file of examples." if flips.left_out else ""
    return f"{KEPT_NO_TEXTS}{left}" if manifest.request.no_texts else left.strip()


def _made(manifest: Manifest) -> Section:
    """How the model was made and on which data it was judged."""
    stages: Rows = [("stage", "parameters", "what it did", "digest", "seconds")]
    for record in manifest.stages:
        seconds = f"{record.seconds:.1f}{' (cached)' if record.cached else ''}"
        stages.append((record.stage, _words(record.params), _words(record.facts), record.artifact.digest[:12], seconds))
    splits: Rows = [("split", "from", "digest", "examples", "cut")]
    for name, split in manifest.data.items():
        splits.append((name, split.origin, split.digest[:12], f"{split.count:,}", f"{split.truncated:,}"))
    about = (
        f"Data: {manifest.request.data}. No text is in two of the splits; the model was judged on certification alone."
    )
    return Section(
        "made", "How it was made", about, tables=[Table("Stages", stages, words=4), Table("Data", splits, words=3)]
    )


def _words(values: Mapping[str, object]) -> str:
    """Names and single values; lists of rows have tables of their own."""
    found = []
    for name, value in values.items():
        if isinstance(value, bool | int | float | str):
            found.append(f"{column_title(name)}: {cell(name, value)}")
        elif isinstance(value, list) and value and not isinstance(value[0], Mapping):
            found.append(f"{column_title(name)}: {', '.join(map(str, value))}")
    return "; ".join(found) or MISSING


def _where(manifest: Manifest) -> Iterator[Section]:
    """Checkpoint, machine and libraries."""
    machine, source = manifest.environment, manifest.source
    table: Rows = [("what", "which")]
    table += [
        ("checkpoint", f"{source.id}{f' at {source.revision}' if source.revision else ''}"),
        ("digest of the checkpoint", source.digest),
        ("digest of the result", manifest.stages[-1].artifact.digest),
        ("geometry", _words(source.geometry)),
        ("processor", f"{machine.cpu}, {machine.cores} cores, {machine.memory_bytes / 2**30:.0f} GiB"),
        ("features of the processor", ", ".join(machine.features) or MISSING),
        ("graphics processor", machine.gpu or MISSING),
        ("system", machine.system),
        ("libraries", "; ".join(f"{name} {version}" for name, version in machine.versions.items())),
        ("run", f"{manifest.id}, {manifest.created}"),
    ]
    for name, value in machine.device.items():
        table.append((name.replace("_", " "), value))
    for measurement in manifest.measurements:
        for what, why in measurement.not_measured.items():
            table.append((f"not measured of {measurement.name}", f"{what}: {why}"))
    yield Section("where", "Where it was measured", tables=[Table("Checkpoint, machine and libraries", table, words=2)])
