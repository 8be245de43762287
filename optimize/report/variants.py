"""The model card of several models of one checkpoint: which there are, what each gained, and how to name one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from optimize.manifest import Manifest
from optimize.report.card import card_data, result_of
from optimize.report.graph_names import graph_name
from optimize.report.markdown import code, code_block, plain
from optimize.report.paths import without_paths
from optimize.report.suited import suitable
from optimize.report.tables import markdown_table, variant_rows
from optimize.report.usage import gives_tokens

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData


def render_shared_card(manifests: Mapping[str, Manifest]) -> str:
    """The card as Markdown with YAML front matter; folders of the machine that made it appear by their names alone."""
    records = {name: without_paths(manifest) for name, manifest in manifests.items()}
    first = next(iter(records.values()))
    parts = (
        f"---\n{_card_data(records).to_yaml()}\n---",
        f"# {plain(first.source.id)}, optimized",
        f"{len(records)} optimized forms of {code(first.source.id)} for {first.request.head}. All numbers were "
        "measured on the models themselves. Speed-ups are against PyTorch FP32 on the machine that is named, and no "
        "others can be held against them.",
        markdown_table(variant_rows(records)),
        _unverified(records),
        "## Use",
        "`PATH` is this folder, or the id of its repository on the Hub. A model is named behind it:",
        code_block(f'import optimize\n\nmodel = optimize.load("PATH#{next(iter(records))}")', "python"),
        *(_section(name, record) for name, record in records.items()),
        "`SHA256SUMS` holds the digest of every file; `optimize verify PATH` checks them, and what each model says of "
        "itself.",
    )
    return "\n\n".join(filter(None, parts)) + "\n"


def _section(name: str, record: Manifest) -> str:
    graph, kind = graph_name(record), record.stages[-1].artifact.kind
    readers = f'Optimum takes `subfolder="{graph.parent}", file_name="{graph.name}"`'
    if gives_tokens(record):
        readers += f', sentence-transformers `backend="{kind}", model_kwargs={{"file_name": "{graph}"}}`'
    elif kind == "onnx" and record.source.sentence is None:
        readers += f', transformers.js `{{ dtype: "fp32", model_file_name: "{name}" }}`'
    own = f"variants/{name}"
    return (
        f"## {name}\n\n{code(str(graph))}. {readers}. Its [card]({own}/README.md) has its measurements, its limits, "
        f"and how it was made; [all figures]({own}/manifest.json).\n\n{suitable(record)}"
    )


def _unverified(records: Mapping[str, Manifest]) -> str:
    names = [code(name) for name, record in records.items() if record.verdict.outcome == "unverified"]
    return f"**Not verified**: not all limits of {', '.join(names)} could be checked." if names else ""


def _card_data(records: Mapping[str, Manifest]) -> ModelCardData:
    """The metadata of the first, with the scores of all."""
    data, *others = [card_data(record) for record in records.values()]
    data.tags = list(dict.fromkeys([*(data.tags or []), *(tag for other in others for tag in other.tags or [])]))
    data.eval_results = [result for name, record in records.items() for result in result_of(record, of=name)] or None
    for other in others:
        if "base_model_relation" in other:
            data["base_model_relation"] = other["base_model_relation"]
    return data
