"""The run's page in Markdown: a reviewer should be able to judge it in a minute."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from optimize.compared import Regression
from optimize.manifest import Manifest, Source
from optimize.measure.shapes import DATA
from optimize.report import candidates, classes, facts, regressions, search, tables
from optimize.report.markdown import code, code_block, plain
from optimize.report.pictures.draw import LAYERS, OVERVIEW, SENSITIVITY, Picture, record_with
from optimize.report.remarks import remarks
from optimize.report.tables import REFERENCE, markdown_table
from optimize.request import Request, words_of

VERDICTS = {
    "passed": "**PASSED**: every limit is met.",
    "failed": "**FAILED**: at least one limit is not met.",
    "unverified": "**UNVERIFIED**: at least one limit could not be checked, or the data prove nothing.",
}
LONG_TABLE = 12
"""Rows above which a table is folded."""
TABLE_PICTURES = {"sensitivity": SENSITIVITY, "layers": LAYERS}
TIMES = (
    "Speed-up is the reference's median latency over the model's, with its 95% interval. Memory is the peak of a "
    "process that runs this model alone, libraries included."
)
ON_THE_DEVICE = "On the device alone, with inputs and outputs in its own memory:"
DRIFT = (
    f"How far the outputs are from those of {REFERENCE}, beyond the metric. Flips are decisions that differ; KL is the "
    "mean divergence of predicted distributions, in nats, and cosine the mean similarity of vectors, each where the "
    "outputs are such; max abs and mean abs are differences of raw outputs. The last two columns are the largest "
    "change of a model's own output when a text is padded, or is in a batch with others."
)
PERCENTILES = (
    "Each model ran in a process of its own, in rounds that alternate between the models. A percentile is left out "
    "where there were too few runs for it."
)


def render(manifest: Manifest, pictures: Sequence[Picture] = (), regression: Regression | None = None) -> str:
    """The whole page, with pictures that lie beside it, and with what got worse, where these are given."""
    sections = (
        title(manifest, regression),
        regressions.section(regression),
        _models(manifest),
        classes.section(manifest),
        candidates.section(manifest),
        search.section(manifest),
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
    return "\n\n".join(filter(None, sections)) + "\n"


def title(manifest: Manifest, regression: Regression | None = None) -> str:
    """The heading, the verdict, what got worse, and each limit with its outcome."""
    request, verdict = manifest.request, manifest.verdict
    rows = [("limit", "set to", "measured", "outcome", "why")]
    for check in verdict.checks:
        value = tables.MISSING if check.value is None else f"{check.value:.4g}"
        rows.append((check.name, f"{check.limit:.4g}", value, check.outcome, check.reason))
    lines = [
        f"# {plain(request.head)} on {plain(request.target)}: {plain(manifest.source.id)}",
        " ".join(filter(None, (VERDICTS[verdict.outcome], regressions.headline(regression)))),
    ]
    lines += [markdown_table(rows)] if verdict.checks else ["No limit was checked."]
    return "\n\n".join(lines)


def _models(manifest: Manifest) -> str:
    if not manifest.measurements:
        return (
            "Nothing was measured: the model was only built. Certify it with `optimize certify` on a machine that the "
            "target runs on."
        )
    paragraphs = (
        "## Models",
        markdown_table(tables.model_rows(manifest)),
        _which_models(manifest),
        _what_columns_mean(manifest),
        _same_models(manifest),
        *remarks(manifest),
        _other_metrics(manifest),
    )
    return "\n\n".join(filter(None, paragraphs))


def _which_models(manifest: Manifest) -> str:
    """What the rows are."""
    converted_name = f"{manifest.request.target}-fp32"
    converted = f" {code(converted_name)} is the same converted for the target, without any optimization."
    kind = "candidate" if manifest.candidates else "stage"
    return (
        f"`{REFERENCE}` is the checkpoint in PyTorch, the reference for all others."
        f"{converted if any(each.name == converted_name for each in manifest.measurements) else ''} "
        f"A row named after a {kind} is the model that it made; the last row is the result, which the limits are "
        "checked on."
    )


def _what_columns_mean(manifest: Manifest) -> str:
    metric, untimed = manifest.measurements[0].metric, tables.untimed(manifest)
    sentences = []
    if metric is not None:
        sentences.append(
            f"Drop is the reference's score minus the model's on the same {metric.examples:,} examples, with its "
            f"{metric.confidence:.0%} interval (paired bootstrap). Agreement is the share of decisions that are the "
            "same as the reference's. The number after the size is its ratio to the FP32 weights'."
        )
        sentences.append(_mcnemar(manifest))
    if metric is not None and not untimed:
        sentences.append(TIMES)
    if untimed:
        sentences.append(
            "The models were judged by their outputs alone, which this machine computed in the target's place, and "
            f"not timed: {plain(untimed)}. Certify the run with `optimize certify` on a machine that the target "
            "runs on."
        )
    return " ".join(filter(None, sentences))


def _mcnemar(manifest: Manifest) -> str:
    metric = manifest.measurements[-1].metric
    if metric is None or metric.p_value is None:
        return ""
    return f"Exact McNemar test of the last model against the reference: p = {metric.p_value:.3g}."


def _same_models(manifest: Manifest) -> str:
    """Which rows are one model: a stage that changes nothing gives the digest that it was given."""
    names: dict[tuple[str, str], list[str]] = {}
    for measurement in manifest.measurements:
        names.setdefault(measurement.subject, []).append(measurement.name)
    same = [" and ".join(map(plain, group)) for group in names.values() if len(group) > 1]
    return f"The same model, measured once: {'; '.join(same)}." if same else ""


def _other_metrics(manifest: Manifest) -> str:
    """A table of the metrics beside the one that is judged."""
    others: dict[str, dict[str, float]] = {}
    for measurement in manifest.measurements:
        if measurement.metric and measurement.metric.others:
            others[measurement.name] = measurement.metric.others
    if not others:
        return ""
    names = tables.in_order(others.values())
    rows: tables.Rows = [("model", *names)]
    for model, values in others.items():
        rows.append((model, *(f"{values[name]:.4f}" if name in values else tables.MISSING for name in names)))
    return markdown_table(rows)


def _stages(manifest: Manifest) -> str:
    rows = [("stage", "parameters", "what it did", "seconds", "digest")]
    for record in manifest.stages:
        params, did = facts.param_words(record), facts.fact_words(record)
        seconds = f"{record.seconds:.1f}" + (" (cached)" if record.cached else "")
        rows.append((record.stage, params, did, seconds, code(record.artifact.digest[:12])))
    return "## Stages\n\n" + markdown_table(rows)


def _fact_tables(manifest: Manifest, pictures: Sequence[Picture]) -> str:
    """The tables that stages state, each under its own heading; long ones are folded."""
    parts = []
    for record in manifest.stages:
        for table in facts.fact_tables(record):
            # Where several stages state such a table, the picture is the last one's.
            drawn = record is record_with(manifest, table.name)
            picture = show(pictures, TABLE_PICTURES.get(table.name, "")) if drawn else ""
            body = markdown_table(table.rows)
            if len(table.rows) > LONG_TABLE + 1:
                count = len(table.rows) - 1
                body = f"<details><summary>All {count} rows</summary>\n\n{body}\n\n</details>"
            parts += [f"### {plain(table.heading)}", table.about, picture, body]
    return "\n\n".join(filter(None, parts))


def show(pictures: Sequence[Picture], file: str) -> str:
    """The link to a picture, if it was drawn."""
    return next((picture.markdown for picture in pictures if picture.file == file), "")


def _latency(manifest: Manifest) -> str:
    rows = tables.latency_rows(manifest.measurements)
    placed = tables.latency_rows(manifest.measurements, on_device=True)
    if len(rows) == 1:
        return ""
    about = (
        f"Median ms at batch x tokens, {manifest.request.threads} threads; in brackets, how many times as fast as "
        f"{REFERENCE} / as {plain(manifest.request.target)}-fp32."
    )
    if DATA in rows[0]:
        about += f" Shape `{DATA}` is one example of the data set at a time, at its own length."
    parts = [
        "## Latency",
        about,
        markdown_table(rows),
        f"{ON_THE_DEVICE}\n\n{markdown_table(placed)}" if len(placed) > 1 else "",
        "<details><summary>Percentiles</summary>",
        markdown_table(tables.percentile_rows(manifest.measurements)),
        PERCENTILES,
        "</details>",
    ]
    return "\n\n".join(filter(None, parts))


def _drift(manifest: Manifest) -> str:
    rows = tables.drift_rows(manifest.measurements)
    return f"## Drift\n\n{DRIFT}\n\n{markdown_table(rows)}" if len(rows) > 1 else ""


def _size(manifest: Manifest) -> str:
    if not manifest.measurements:
        return ""
    table = markdown_table(tables.weight_rows(manifest.measurements))
    return f"## Size and memory\n\n{table}\n\nFLOPs are those of the encoder's layers for one text of 128 tokens."


def _not_measured(manifest: Manifest) -> str:
    lines = []
    for measurement in manifest.measurements:
        for what, why in measurement.not_measured.items():
            lines.append(f"- {plain(measurement.name)}, {plain(what)}: {plain(why)}")
        if measurement.drift and measurement.drift.left_out:
            why = "its own tokenizer splits them into other tokens than the reference's"
            lines.append(f"- {plain(measurement.name)}, drift of {measurement.drift.left_out:,} examples: {why}")
    return "## Not measured\n\n" + "\n".join(lines) if lines else ""


def _data(manifest: Manifest) -> str:
    rows = [("split", "from", "examples", "truncated", "digest")]
    for name, split in manifest.data.items():
        rows.append((name, split.origin, f"{split.count:,}", f"{split.truncated:,}", code(split.digest[:12])))
    about = (
        "No text is in two of these splits. Stages calibrate, tune and train on theirs; certification examples are "
        "for the measurements above alone."
    )
    for name, value in manifest.thresholds.items():
        about += (
            f" The threshold {code(name)}, {value:.4f}, was fixed on tuning data with the FP32 reference; all models "
            "were judged with it."
        )
    labels = f"Labels: {plain(manifest.labels)}." if manifest.labels else ""
    parts = [f"## Data\n\n{code(manifest.request.data)}. {about}", labels, markdown_table(rows), _data_notes(manifest)]
    return "\n\n".join(filter(None, parts))


def _data_notes(manifest: Manifest) -> str:
    """How splits were cut and sampled and what was left out, each once with the splits that it is of."""
    splits: dict[str, list[str]] = {}
    for name, split in manifest.data.items():
        for note in split.notes:
            splits.setdefault(note, []).append(name)
    return "\n".join(f"- {', '.join(names)}: {plain(note)}." for note, names in splits.items())


def _environment(manifest: Manifest) -> str:
    machine, source = manifest.environment, manifest.source
    revision = f" at {code(source.revision)}" if source.revision else ""
    features = plain(", ".join(machine.features)) or "no features known"
    lines = [
        f"- checkpoint: {source.kind} {code(source.id)}{revision}, stored as {plain(source.stored_as)}, converted to "
        f"FP32; digest {code(source.digest[:12])}",
        *_how_it_was_read(source),
        f"- geometry: {_listed(source.geometry)}",
        f"- machine: {plain(machine.cpu)}, {machine.cores} cores ({features}), {machine.memory_bytes / 2**30:.0f} GiB; "
        f"GPU: {plain(machine.gpu or 'none')}; {plain(machine.system)}",
        f"- libraries: {_listed(machine.versions)}",
    ]
    for what, value in machine.device.items():
        lines.append(f"- {plain(what.replace('_', ' '))}: {plain(value)}")
    return "## Checkpoint and machine\n\n" + "\n".join(lines)


def _how_it_was_read(source: Source) -> Iterator[str]:
    if source.base:
        revision = f" at {code(source.base_revision)}" if source.base_revision else ""
        yield f"- adapter: merged by peft into {code(source.base)}{revision}"
    if source.wrapper:
        yield f"- names of weights: all began with {code(source.wrapper)}, which is dropped"
    if source.left_out:
        yield f"- left out, since its class has no use for them: {plain(source.left_out)}"


def _listed(values: Mapping[str, int | str]) -> str:
    return plain(", ".join(f"{name} {value}" for name, value in values.items()))


def _reproduce(request: Request, manifest: Manifest) -> str:
    words = command(request, chosen=bool(manifest.candidates))
    files = "`model` beside this page is the result, and `manifest.json` holds every number"
    return f"## Reproduce\n\n{code_block(words)}\n\nRun {plain(manifest.id)}, {plain(manifest.created)}; {files}."


def command(request: Request, *, chosen: bool = False) -> str:
    """The command line that asks for the same; where the pipeline was `chosen`, each candidate has its own settings."""
    return " \\\n  ".join(["optimize run", *(words for _, words in words_of(request, chosen=chosen))])
