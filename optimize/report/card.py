"""The model card of a publication: the Hub's metadata, how to use it, and what was measured."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from optimize.data.urls import on_hub
from optimize.manifest import Manifest, Source
from optimize.report import tables
from optimize.report.facts import fact_rows
from optimize.report.markdown import code, code_block, plain
from optimize.report.page import command, show
from optimize.report.paths import is_on_hub, without_paths
from optimize.report.pictures.draw import LAYERS, OVERVIEW, SENSITIVITY, Picture
from optimize.report.remarks import is_int8, zeros
from optimize.report.suited import bounds, made, suitable
from optimize.report.tables import markdown_table
from optimize.report.usage import gives_tokens, usage

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData

CHECKPOINT_USAGE = (
    "`checkpoint` holds the same model in FP32 for PyTorch, to train or to prune it further:\n\n"
    '```python\nimport optimize\n\nmodel = optimize.load_model("PATH/checkpoint")\n```'
)
UNVERIFIED = (
    "**Not verified**: it was published although not all of its limits could be checked, or its data prove nothing. "
    "What is missing stands below, beside its limits."
)
HUB_METRICS = {"top1_accuracy": "accuracy", "spearman": "spearmanr"}
"""Metrics that the Hub knows by other names than ours; it shows ours beside them."""


def render_card(
    manifest: Manifest, pictures: Sequence[Picture] = (), *, checkpoint: bool = False, use: str = ""
) -> str:
    """The card as Markdown with YAML front matter; folders of this machine appear by their names alone.

    It shows the pictures that are given, which lie beside it, and says how to load the `checkpoint` where there is one.
    `use` says how the model is used where its files are not arranged as usual.
    """
    manifest = without_paths(manifest)
    parts = (
        f"---\n{card_data(manifest).to_yaml()}\n---",
        f"# {plain(manifest.source.id)}, optimized for {plain(manifest.request.target)}",
        _origin(manifest),
        UNVERIFIED if manifest.verdict.outcome == "unverified" else "",
        "## Measurements",
        _score(manifest),
        markdown_table(tables.model_rows(manifest)),
        show(pictures, OVERVIEW),
        _conditions(manifest),
        _vocabulary(manifest),
        _left_in_float(manifest),
        *zeros(manifest),
        show(pictures, LAYERS),
        show(pictures, SENSITIVITY),
        "## Use",
        "`PATH` is this folder, or the id of its repository on the Hub.",
        use or usage(manifest),
        CHECKPOINT_USAGE if checkpoint else "",
        "## What it was built for, and its limits",
        suitable(manifest),
        bounds(manifest),
        "## How it was made",
        *made(manifest),
        "## Limits that it met" if manifest.verdict.outcome == "passed" else "## Limits",
        "\n".join(f"- {plain(check.name)}: {plain(check.reason)}" for check in manifest.verdict.checks),
        "## Reproduce",
        code_block(command(manifest.request, chosen=bool(manifest.candidates))),
        "`manifest.json` holds everything that was measured, and `SHA256SUMS` the digest of every file.",
    )
    return "\n\n".join(filter(None, parts)) + "\n"


def card_data(manifest: Manifest) -> ModelCardData:
    """The metadata that the Hub reads; huggingface_hub refuses results that are not complete."""
    from huggingface_hub import ModelCardData

    last = manifest.measurements[-1]
    quantized = is_int8(last)
    tags = [manifest.stages[-1].artifact.kind, "distilbert", "distilbert-optimize"]
    card = manifest.source.card
    trained = [_data_id(manifest)] if "training" in manifest.data and is_on_hub(manifest) else []
    data = ModelCardData(
        language=card.language or None,
        license=card.license,
        license_name=card.license_name,
        license_link=card.license_link,
        library_name="sentence-transformers" if gives_tokens(manifest) else "optimum",
        pipeline_tag=_pipeline_tag(manifest),
        tags=[*tags, "int8"] if quantized else tags,
        datasets=list(dict.fromkeys([*card.datasets, *trained])) or None,
        model_name=manifest.source.id,
        eval_results=result_of(manifest) or None,
    )
    if manifest.source.kind == "hub":
        data["base_model"] = manifest.source.id
        if quantized:
            data["base_model_relation"] = "quantized"  # otherwise the Hub guesses it
    return data


def eval_results(manifest: Manifest, of: str = "") -> dict[str, str]:
    """The score on certification data as the Hub's `.eval_results/*.yaml`, by name of the file; `of` names the model.

    The Hub shows it where the data set is a benchmark there, whose task has the name of the data's config, and ignores
    it otherwise. There is none where the data are not the Hub's.
    """
    import yaml

    metric = manifest.measurements[-1].metric
    if metric is None or not is_on_hub(manifest):
        return {}
    request, split = manifest.request, manifest.data["certification"]
    dataset = {"id": _data_id(manifest), "task_id": request.data_config or "default", "revision": request.data_revision}
    notes = f"{f'{of}: ' if of else ''}{metric.name} on {metric.examples:,} examples of the split {split.origin}"
    entry = {"dataset": dataset, "value": round(metric.value, 4), "date": manifest.created, "notes": notes}
    name = re.sub(r"[^A-Za-z0-9]+", "-", f"{dataset['id']} {dataset['task_id']}").strip("-").lower()
    return {f"{name}.yaml": yaml.safe_dump([entry], sort_keys=False, allow_unicode=True)}


def _pipeline_tag(manifest: Manifest) -> str | None:
    """The Hub's name of the task; it has none for a head of the user's own."""
    if manifest.request.head_code is not None:
        return None
    return "sentence-similarity" if manifest.source.sentence else manifest.request.head


def result_of(manifest: Manifest, of: str = "") -> list[EvalResult]:
    """The score on certification data, as one of the Hub's evaluation results; `of` names the model of several."""
    from huggingface_hub import EvalResult

    request, metric = manifest.request, manifest.measurements[-1].metric
    if metric is None:
        return []
    return [
        EvalResult(
            task_type=request.head,
            dataset_type=_data_id(manifest),
            dataset_name=request.data,
            dataset_config=request.data_config,
            dataset_split=manifest.data["certification"].origin,
            dataset_revision=request.data_revision,
            metric_type=HUB_METRICS.get(metric.name, metric.name),
            metric_value=round(metric.value, 4),
            metric_name=f"{metric.name} ({of})" if of else metric.name,
        )
    ]


def _data_id(manifest: Manifest) -> str:
    """What the Hub knows the data by, where it has them: an address in a data set is of that data set."""
    found = on_hub(manifest.request.data)
    return found.name if found else manifest.request.data


def _origin(manifest: Manifest) -> str:
    source = manifest.source
    revision = f" at revision {code(source.revision)}" if source.revision else ""
    stages = " → ".join(plain(record.stage) for record in manifest.stages)
    return (
        f"An optimized form of {code(source.id)}{revision} for {manifest.request.head}, made by the stages {stages}. "
        f"All numbers below were measured on this model itself{_embedding(source)}."
    )


def _embedding(source: Source) -> str:
    """What was compared, where that is the embedding of a sentence encoder."""
    if source.sentence is None:
        return ""
    prompt = f", texts after the prompt {code(source.sentence.prompt)}" if source.sentence.prompt else ""
    return f", on its sentence embedding ({plain(source.sentence.modules)}){prompt}"


def _score(manifest: Manifest) -> str:
    reference, last = manifest.measurements[0], manifest.measurements[-1]
    metric = last.metric
    if metric is None:
        return "Accuracy was not measured."
    relative = f" ({metric.relative_drop:+.2%} relative)" if metric.relative_drop is not None else ""
    return (
        f"{plain(metric.name)} {metric.value:.4f} against {metric.reference:.4f} in FP32: "
        f"a drop of {metric.drop:+.4f}{relative}, "
        f"{metric.confidence:.0%} interval {metric.interval[0]:+.4f} to {metric.interval[1]:+.4f}. "
        f"Size {tables.megabytes(last.size.bytes)} against {tables.megabytes(reference.size.bytes)}."
    )


def _conditions(manifest: Manifest) -> str:
    """What was measured on."""
    split, request = manifest.data["certification"], manifest.request
    return (
        f"Accuracy: {code(request.data)}, split {plain(split.origin)}, {split.count:,} examples that no stage used. "
        f"Latency: {plain(manifest.environment.cpu)}, {request.threads} threads; it differs between machines, so "
        "measure on yours."
    )


def _vocabulary(manifest: Manifest) -> str:
    """What became of the vocabulary, where a stage made it smaller."""
    for record in manifest.stages:
        if "rows_dropped" in record.facts:
            facts = record.facts
            return (
                f"Its tokenizer has {facts['vocabulary']:,} of {facts['vocabulary_before']:,} word pieces: those "
                f"that {facts['corpus_texts']:,} texts use. Other words are split into shorter pieces, which costs "
                "accuracy on texts that have them."
            )
    return ""


def _left_in_float(manifest: Manifest) -> str:
    """Which groups of operators a stage left in float, if any."""
    names = []
    for record in manifest.stages:
        for row in fact_rows(record, "reverted"):
            if "group" in row:
                names.append(code(str(row["group"])))
    return f"Left in float to keep accuracy: {', '.join(names)}." if names else ""
