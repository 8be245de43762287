"""The run's page in Markdown: a reviewer should be able to judge it in a minute."""

from __future__ import annotations

from collections.abc import Sequence

from optimize.manifest import Manifest
from optimize.report import candidates, facts, tables
from optimize.report.pictures.draw import LAYERS, OVERVIEW, SENSITIVITY, Picture, record_with
from optimize.report.remarks import remarks
from optimize.report.tables import markdown_table
from optimize.request import Request, words_of

VERDICTS = {
    "passed": "**PASSED**: every limit is met.",
    "failed": "**FAILED**: at least one limit is not met.",
    "unverified": "**UNVERIFIED**: at least one limit could not be checked.",
}


LONG_TABLE = 12
TABLE_PICTURES = {"sensitivity": SENSITIVITY, "layers": LAYERS}
TIMES = (
    "Speed-up is the ratio of median latencies to pytorch-fp32. Memory is the peak of a process that runs this model "
    "alone, libraries included."
)
ON_THE_DEVICE = "On the device alone, texts and answers in its own memory:"


def render(manifest: Manifest, pictures: Sequence[Picture] = ()) -> str:
    """The whole page; it shows the pictures that are given, which lie beside it."""
    sections = (
        _title(manifest),
        _models(manifest),
        candidates.section(manifest),
        show(pictures, OVERVIEW),
        _stages(manifest),
        _fact_tables(manifest, pictures),
        _latency(manifest),
        _drift(manifest),
        _size(manifest),
        _not_measured(manifest),
        _data(manifest),
        _environment(manifest),
        _reproduce(manifest.request, manifest),
    )
    return "\n\n".join(section for section in sections if section) + "\n"


def _title(manifest: Manifest) -> str:
    request, verdict = manifest.request, manifest.verdict
    rows = [("limit", "set to", "measured", "outcome", "why")]
    for check in verdict.checks:
        value = "–" if check.value is None else f"{check.value:.4g}"
        rows.append((check.name, f"{check.limit:.4g}", value, check.outcome, check.reason))
    lines = [f"# {request.head} on {request.target}: {manifest.source.id}", VERDICTS[verdict.outcome]]
    lines += [markdown_table(rows)] if verdict.checks else ["No limit was checked."]
    return "\n\n".join(lines)


def _models(manifest: Manifest) -> str:
    if not manifest.measurements:
        return "Nothing was measured: the model was only built. Run `optimize certify` on the target's machine."
    metric, untimed = manifest.measurements[0].metric, tables.untimed(manifest)
    text = "## Models\n\n" + markdown_table(tables.model_rows(manifest))
    if metric is not None:
        text += (
            f"\n\nDrop is against pytorch-fp32 on the same {metric.examples:,} examples, with its "
            f"{metric.confidence:.0%} interval (paired bootstrap). {_mcnemar(manifest)}"
        )
        text += "" if untimed else TIMES
    if untimed:
        text += (
            f"\n\nThe models were judged by their answers alone, which this machine computed in the target's place, "
            f"and not timed: {untimed}. Certify the run with `optimize certify` on a machine that the target runs on."
        )
    text += _same_models(manifest)
    text += "".join(f"\n\n{remark}" for remark in remarks(manifest))
    others = {m.name: m.metric.others for m in manifest.measurements if m.metric and m.metric.others}
    if others:
        names = list(dict.fromkeys(name for values in others.values() for name in values))
        rows = [("model", *names)]
        rows += [
            (model, *(f"{values[name]:.4f}" if name in values else "–" for name in names))
            for model, values in others.items()
        ]
        text += "\n\n" + markdown_table(rows)
    return text


def _same_models(manifest: Manifest) -> str:
    """Which rows are one model: a stage that changes nothing gives the digest that it was given."""
    names: dict[tuple[str, str], list[str]] = {}
    for measurement in manifest.measurements:
        names.setdefault(measurement.subject, []).append(measurement.name)
    same = [" and ".join(group) for group in names.values() if len(group) > 1]
    return f"\n\nThe same model, measured once: {'; '.join(same)}." if same else ""


def _mcnemar(manifest: Manifest) -> str:
    metric = manifest.measurements[-1].metric
    if metric is None or metric.p_value is None:
        return ""
    return f"Exact McNemar test of the last model against the reference: p = {metric.p_value:.3g}. "


def _stages(manifest: Manifest) -> str:
    rows = [("stage", "parameters", "what it did", "seconds", "artifact")]
    for record in manifest.stages:
        params, did = facts.param_words(record), facts.fact_words(record)
        seconds = f"{record.seconds:.1f}" + (" (cached)" if record.cached else "")
        rows.append((record.stage, params, did, seconds, f"`{record.artifact.digest[:12]}`"))
    return "## Stages\n\n" + markdown_table(rows)


def _fact_tables(manifest: Manifest, pictures: Sequence[Picture]) -> str:
    """The tables that stages state, each under its own heading; long ones are folded."""
    drawn = {table: (record_with(manifest, table), file) for table, file in TABLE_PICTURES.items()}
    parts = []
    for record in manifest.stages:
        for table in facts.fact_tables(record):
            from_record, file = drawn.get(table.name, (None, ""))
            picture = show(pictures, file) if record is from_record else ""
            body = markdown_table(table.rows)
            if len(table.rows) > LONG_TABLE + 1:
                count = len(table.rows) - 1
                body = f"<details><summary>All {count} rows</summary>\n\n{body}\n\n</details>"
            parts += [f"### {table.heading}", table.about, picture, body]
    return "\n\n".join(part for part in parts if part)


def show(pictures: Sequence[Picture], file: str) -> str:
    """The link to a picture, if it was drawn."""
    return next((picture.markdown for picture in pictures if picture.file == file), "")


def _latency(manifest: Manifest) -> str:
    if not any(measurement.latency for measurement in manifest.measurements):
        return ""
    target = f"{manifest.request.target}-fp32"
    placed = tables.latency_rows(manifest.measurements, on_device=True)
    return (
        f"## Latency\n\nMedian ms at batch x tokens, {manifest.request.threads} threads; in brackets the ratio to "
        f"pytorch-fp32 / to {target}. `data`: single examples at the lengths that occur."
        "\n\n"
        + markdown_table(tables.latency_rows(manifest.measurements))
        + (f"\n\n{ON_THE_DEVICE}\n\n{markdown_table(placed)}" if len(placed) > 1 else "")
        + "\n\n<details><summary>Percentiles</summary>\n\n"
        + markdown_table(tables.percentile_rows(manifest.measurements))
        + "\n\nEach model ran in a process of its own, in interleaved rounds. A percentile is left out where too few "
        "runs could show it.\n\n</details>"
    )


def _drift(manifest: Manifest) -> str:
    rows = tables.drift_rows(manifest.measurements)
    if len(rows) == 1:
        return ""
    return (
        "## Drift\n\nHow far outputs moved from pytorch-fp32, beyond the metric; the last two columns say how much a "
        "model's own output changes when an example is padded or batched with others.\n\n" + markdown_table(rows)
    )


def _size(manifest: Manifest) -> str:
    if not manifest.measurements:
        return ""
    table = markdown_table(tables.weight_rows(manifest.measurements))
    return f"## Size and memory\n\n{table}\n\nFLOPs are those of the encoder's layers for one text of 128 tokens."


def _not_measured(manifest: Manifest) -> str:
    lines = [
        f"- {measurement.name}, {what}: {why}"
        for measurement in manifest.measurements
        for what, why in measurement.not_measured.items()
    ]
    lines += tables.left_out(manifest.measurements)
    return "## Not measured\n\n" + "\n".join(lines) if lines else ""


def _data(manifest: Manifest) -> str:
    rows = [("split", "from", "examples", "cut to fit", "digest")]
    for name, split in manifest.data.items():
        rows.append((name, split.origin, f"{split.count:,}", f"{split.truncated:,}", f"`{split.digest[:12]}`"))
    return f"## Data\n\n`{manifest.request.data}`; no content is shared between splits.\n\n" + markdown_table(rows)


def _environment(manifest: Manifest) -> str:
    machine, source = manifest.environment, manifest.source
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    geometry = ", ".join(f"{name} {value}" for name, value in source.geometry.items())
    revision = f" at `{source.revision}`" if source.revision else ""
    device = "".join(f"\n- {what.replace('_', ' ')}: {value}" for what, value in machine.device.items())
    return (
        "## Checkpoint and machine\n\n"
        f"- checkpoint: {source.kind} `{source.id}`{revision}, stored as {source.stored_as}, raised to FP32; "
        f"digest `{source.digest[:12]}`\n- geometry: {geometry}\n"
        f"- machine: {machine.cpu}, {machine.cores} cores ({', '.join(machine.features) or 'no features known'}), "
        f"{machine.memory_bytes / 2**30:.0f} GiB; GPU: {machine.gpu or 'none'}; {machine.system}\n"
        f"- libraries: {versions}{device}"
    )


def _reproduce(request: Request, manifest: Manifest) -> str:
    words = command(request, chosen=bool(manifest.candidates))
    return f"## Reproduce\n\n```\n{words}\n```\n\nRun {manifest.id}, {manifest.created}."


def command(request: Request, *, chosen: bool = False) -> str:
    """The command line that asks for the same; where the pipeline was `chosen`, each candidate has its own settings."""
    return " \\\n  ".join(["optimize run", *(words for _, words in words_of(request, chosen=chosen))])
