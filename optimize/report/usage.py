"""How to use a published model: the Python of its card."""

from __future__ import annotations

import json
from pathlib import PurePosixPath

from optimize.heads import recorded_head
from optimize.manifest import Manifest, SentenceRecord
from optimize.measure.kinds import KINDS
from optimize.report.markdown import code_block
from optimize.sentences.configs import OUTPUT

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
"""ONNX Runtime's, by the target; sentence-transformers would take whichever comes first."""
GRAPHS = {"onnx": "model.onnx", "openvino": "openvino_model.xml"}
"""A graph's file where a model is published alone."""


def gives_tokens(manifest: Manifest) -> bool:
    """Whether the model is one of a sentence encoder that sentence-transformers itself can load."""
    return any(record.facts.get("token_embeddings") is True for record in manifest.stages)


def usage(manifest: Manifest, graph: PurePosixPath | None = None) -> str:
    """How to load a publication's model from its folder or repository, `PATH`, and to use it.

    `graph` is its place where it has another than a model that is published alone.
    """
    if gives_tokens(manifest):
        own = _usage_of_library(manifest, graph)
    elif manifest.source.sentence is not None:
        own = _usage_of_embedding(manifest, manifest.source.sentence, graph)
    else:
        own = _usage_of_runtime(manifest, graph)
    return "\n\n".join(filter(None, (_usage_of_ours(manifest, graph), own)))


def _usage_of_ours(manifest: Manifest, graph: PurePosixPath | None) -> str:
    """This package's callable; a head of the user's own has none."""
    if manifest.request.head_code is not None:
        return ""
    named = f"PATH#{graph.stem}" if graph else "PATH"
    lines = f'import optimize\n\nmodel = optimize.load("{named}")\nprint(model({json.dumps(_question(manifest))}))'
    return (
        "With distilbert-optimize, which checks every file, refuses a CPU on which the model would be wrong, and "
        f"answers as `transformers.pipeline` does (`hf://` goes before an id):\n\n{code_block(lines, 'python')}"
    )


def _question(manifest: Manifest) -> object:
    """What the callable may be asked."""
    head = recorded_head(manifest.request)
    if head.has_choices:
        return {"context": head.example[0], "choices": head.example[1:]}
    return dict(zip(("question", "context"), head.example, strict=True)) if len(head.example) > 1 else head.example[0]


def _usage_of_runtime(manifest: Manifest, graph: PurePosixPath | None) -> str:
    head = recorded_head(manifest.request)
    asked, more = ", ".join(map(json.dumps, head.example)), ""
    if head.has_choices:
        asked, more = f"{[head.example[0]] * 2}, {[*head.example[1:]]}, padding=True".replace("'", '"'), "[None]"
    lines = [
        *_opened(manifest, graph),
        f'tokens = tokenizer({asked}, return_tensors="np")',
        f'feed = {{name: tokens[name]{more} for name in ("input_ids", "attention_mask")}}',
        *(f"print({_answer(manifest, name)})" for name in head.outputs),
    ]
    return "\n\n".join(filter(None, (code_block("\n".join(lines), "python"), _usage_of_optimum(manifest, graph))))


def _opened(manifest: Manifest, graph: PurePosixPath | None) -> list[str]:
    """Opening the model in its runtime, and its tokenizer; nothing else has to be installed."""
    place = graph or PurePosixPath(GRAPHS[manifest.stages[-1].artifact.kind])
    library, opened = "openvino", f'openvino.Core().compile_model("PATH/{place}", "CPU")'
    if _is_onnx(manifest):
        provider = PROVIDERS[manifest.request.target]
        library, opened = "onnxruntime", f'onnxruntime.InferenceSession("PATH/{place}", providers=["{provider}"])'
    return [
        f"import {library}",
        "from transformers import AutoTokenizer",
        "",
        f"model = {opened}",
        'tokenizer = AutoTokenizer.from_pretrained("PATH")',
    ]


def _answer(manifest: Manifest, output: str) -> str:
    return f'model.run(["{output}"], feed)[0]' if _is_onnx(manifest) else f'model(feed)["{output}"]'


def _is_onnx(manifest: Manifest) -> bool:
    return manifest.stages[-1].artifact.kind == "onnx"


def _usage_of_optimum(manifest: Manifest, graph: PurePosixPath | None) -> str:
    """The class that takes the place of the checkpoint's own, where optimum has one."""
    head, kind = recorded_head(manifest.request), KINDS[manifest.stages[-1].artifact.kind]
    if head.code is not None or head.auto_class in kind.lacks:
        return ""
    # transformers calls the model without a task AutoModel, and optimum calls it after its task.
    name = kind.prefix + (str(head.auto_class).removeprefix("AutoModel").removeprefix("For") or "FeatureExtraction")
    where = f', subfolder="{graph.parent}", file_name="{graph.name}"' if graph else ""
    lines = f'from {kind.module} import {name}\n\nmodel = {name}.from_pretrained("PATH"{where})'
    return f"With {kind.package}, in the place of the checkpoint's class:\n\n{code_block(lines, 'python')}"


def _usage_of_library(manifest: Manifest, graph: PurePosixPath | None) -> str:
    """sentence-transformers runs the graph, and the folder's own modules behind it."""
    kind, target = manifest.stages[-1].artifact.kind, manifest.request.target
    options: dict[str, str] = {"file_name": str(graph or GRAPHS[kind])}
    if target in PROVIDERS:
        options["provider"] = PROVIDERS[target]
    lines = [
        "from sentence_transformers import SentenceTransformer",
        "",
        f'model = SentenceTransformer("PATH", backend="{kind}", model_kwargs={json.dumps(options)})',
        'print(model.encode(["A sentence.", "Another one."]).shape)',
    ]
    return code_block("\n".join(lines), "python")


def _usage_of_embedding(manifest: Manifest, sentence: SentenceRecord, graph: PurePosixPath | None) -> str:
    """The graph gives the embedding alone."""
    cut = f"max_length={sentence.max_tokens}, " if sentence.max_tokens else ""
    lines = [
        *_opened(manifest, graph),
        f"prompt = {json.dumps(sentence.prompt)}",
        'texts = [prompt + text for text in ("A sentence.", "Another one.")]',
        f'tokens = tokenizer(texts, padding=True, truncation=True, {cut}return_tensors="np")',
        'feed = {name: tokens[name] for name in ("input_ids", "attention_mask")}',
        f"print({_answer(manifest, OUTPUT)}.shape)",
    ]
    return code_block("\n".join(lines), "python")
