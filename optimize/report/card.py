"""The model card of a publication: the Hub's metadata, how to use it, and what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from optimize.heads import HEADS
from optimize.interfaces import Head
from optimize.manifest import Manifest, Measurement
from optimize.measure.kinds import KINDS, ModelKind
from optimize.report import tables
from optimize.report.facts import fact_rows
from optimize.report.page import command, show
from optimize.report.pictures.draw import LAYERS, OVERVIEW, SENSITIVITY, Picture
from optimize.report.remarks import zeros
from optimize.report.tables import markdown_table

CHECKPOINT_USAGE = (
    "`checkpoint` holds the same in FP32 as PyTorch loads it, to train or to prune further:\n\n"
    '```python\nimport optimize\n\nmodel = optimize.load_model("PATH/checkpoint")\n```'
)


def render_card(manifest: Manifest, pictures: Sequence[Picture] = (), *, checkpoint: bool = False) -> str:
    """The card as Markdown with YAML front matter; folders of this machine appear by their names alone.

    It shows the pictures that are given, which lie beside it, and says how to load the `checkpoint` where there is one.
    """
    manifest = _without_paths(manifest)
    last = manifest.measurements[-1]
    reference = manifest.measurements[0]
    machine = manifest.environment
    stages = " → ".join(record.stage for record in manifest.stages)
    parts = (
        _front_matter(manifest, last),
        f"# {manifest.source.id}, optimized for {manifest.request.target}",
        f"An optimized form of `{manifest.source.id}`"
        + (f" at revision `{manifest.source.revision}`" if manifest.source.revision else "")
        + f" for {manifest.request.head}, made by the stages {stages}. "
        "All numbers below were measured on this very model.",
        "## What it lost and gained",
        _sentence(reference, last),
        markdown_table(tables.model_rows(manifest)),
        show(pictures, OVERVIEW),
        f"Accuracy: `{manifest.request.data}`, split {manifest.data['certification'].origin}, "
        f"{manifest.data['certification'].count:,} examples that no stage saw. Latency: {machine.cpu}, "
        f"{manifest.request.threads} threads; other machines differ, so measure on yours.",
        _vocabulary(manifest),
        _left_in_float(manifest),
        *zeros(manifest),
        show(pictures, LAYERS),
        show(pictures, SENSITIVITY),
        "## Use",
        _usage(HEADS[manifest.request.head], KINDS[manifest.stages[-1].artifact.kind]),
        CHECKPOINT_USAGE if checkpoint else "",
        "## Limits that it met",
        "\n".join(f"- {check.name}: {check.reason}" for check in manifest.verdict.checks),
        "## Reproduce",
        f"```\n{command(manifest.request, chosen=bool(manifest.candidates))}\n```",
        "`manifest.json` holds everything that was measured; `SHA256SUMS` the digest of every file.",
    )
    return "\n\n".join(part for part in parts if part) + "\n"


def _vocabulary(manifest: Manifest) -> str:
    """What became of the vocabulary, where a stage made it smaller."""
    for facts in (record.facts for record in manifest.stages if "rows_dropped" in record.facts):
        return (
            f"Its tokenizer knows {facts['vocabulary']:,} of {facts['vocabulary_before']:,} word pieces: those "
            f"that {facts['corpus_texts']:,} texts use. Other words are split into shorter pieces, at a price in "
            "accuracy on texts that have them."
        )
    return ""


def _left_in_float(manifest: Manifest) -> str:
    """Which groups of operators a stage left in float, if any."""
    names = [str(row["group"]) for r in manifest.stages for row in fact_rows(r, "reverted") if "group" in row]
    return f"Left in float for accuracy's sake: {', '.join(f'`{name}`' for name in names)}." if names else ""


def _without_paths(manifest: Manifest) -> Manifest:
    """The manifest with Hub ids as they are, and folders as the last part of their path."""
    request = manifest.request
    model = request.model if manifest.source.kind != "folder" else manifest.source.id
    data = request.data if request.data_revision is not None else Path(request.data).name
    runtime = {name: value for name, value in request.runtime.items() if name != "model_cache"}
    vocabulary = Path(request.vocabulary).name if request.vocabulary else None
    settings = {name: Path(value).name if isinstance(value, str) else value for name, value in request.settings.items()}
    settings.pop("runtime.model_cache", None)
    request = replace(request, model=model, data=data, runtime=runtime, vocabulary=vocabulary, settings=settings)
    return manifest.model_copy(update={"request": request})


def _sentence(reference: Measurement, last: Measurement) -> str:
    metric = last.metric
    if metric is None:
        return "Accuracy was not measured."
    relative = f" ({metric.relative_drop:+.2%} relative)" if metric.relative_drop is not None else ""
    return (
        f"{metric.name} {metric.value:.4f} against {metric.reference:.4f} in FP32: "
        f"a drop of {metric.drop:+.4f}{relative}, "
        f"{metric.confidence:.0%} interval {metric.interval[0]:+.4f} to {metric.interval[1]:+.4f}. "
        f"Size {tables.megabytes(last.size.bytes)} against {tables.megabytes(reference.size.bytes)}."
    )


def _front_matter(manifest: Manifest, last: Measurement) -> str:
    import yaml

    head = manifest.request.head
    card: dict[str, Any] = {
        "library_name": "optimum",
        "pipeline_tag": head,
        "tags": [
            manifest.stages[-1].artifact.kind,
            "distilbert",
            *(["int8"] if "int8" in last.size.by_dtype else []),
            "distilbert-optimize",
        ],
    }
    if manifest.source.kind == "hub":
        card["base_model"] = manifest.source.id
    if last.metric is not None:
        card["model-index"] = [
            {
                "name": manifest.source.id,
                "results": [
                    {
                        "task": {"type": head},
                        "dataset": {"name": manifest.request.data, "type": manifest.request.data},
                        "metrics": [{"type": last.metric.name, "value": round(last.metric.value, 4)}],
                    }
                ],
            }
        ]
    return f"---\n{yaml.safe_dump(card, sort_keys=False)}---"


def _usage(head: Head, kind: ModelKind) -> str:
    if head.auto_class in kind.lacks:
        return _usage_of_choices()
    # transformers calls the model without a task AutoModel, and optimum calls it after its task.
    name = kind.prefix + (head.auto_class.removeprefix("AutoModel").removeprefix("For") or "FeatureExtraction")
    imported = "AutoTokenizer" if head.usage is None else "AutoTokenizer, pipeline"
    lines = [
        f"from {kind.module} import {name}",
        f"from transformers import {imported}",
        "",
        f'model = {name}.from_pretrained("PATH")',
        'tokenizer = AutoTokenizer.from_pretrained("PATH")',
    ]
    if head.usage is not None:
        lines.append(f'print(pipeline("{head.name}", model=model, tokenizer=tokenizer)({head.usage}))')
    return "\n".join(["```python", *lines, "```"])


def _usage_of_choices() -> str:
    """optimum-intel has no class for multiple choice; OpenVINO itself needs none."""
    return (
        "```python\nimport openvino\nfrom transformers import AutoTokenizer\n\n"
        'tokenizer = AutoTokenizer.from_pretrained("PATH")\n'
        'model = openvino.Core().compile_model("PATH/openvino_model.xml", "CPU")\n'
        'tokens = tokenizer(["Who?", "Who?"], ["Ada.", "Nobody."], padding=True, return_tensors="np")\n'
        'names = ("input_ids", "attention_mask")  # [batch, choices, tokens]\n'
        'print(model({name: tokens[name][None] for name in names})["logits"].argmax())\n```'
    )
