"""How to use a published model: the Python of its card."""

from __future__ import annotations

import json

from optimize.heads import recorded_head
from optimize.manifest import Manifest, SentenceRecord
from optimize.measure.kinds import KINDS
from optimize.report.markdown import code_block
from optimize.sentences.configs import OUTPUT

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
"""ONNX Runtime's, by the target; sentence-transformers would take whichever comes first."""


def gives_tokens(manifest: Manifest) -> bool:
    """Whether the model is one of a sentence encoder that sentence-transformers itself can load."""
    return any(record.facts.get("token_embeddings") is True for record in manifest.stages)


def usage(manifest: Manifest) -> str:
    """How to load a publication's model from its folder or repository, `PATH`, and to use it."""
    if gives_tokens(manifest):
        return _usage_of_library(manifest)
    head, sentence = recorded_head(manifest.request), manifest.source.sentence
    if sentence is not None:
        return _usage_of_embedding(manifest, sentence)
    asked, more = ", ".join(map(json.dumps, head.example)), ""
    if head.has_choices:
        asked, more = f"{[head.example[0]] * 2}, {[*head.example[1:]]}, padding=True".replace("'", '"'), "[None]"
    lines = [
        *_opened(manifest),
        f'tokens = tokenizer({asked}, return_tensors="np")',
        f'feed = {{name: tokens[name]{more} for name in ("input_ids", "attention_mask")}}',
        *(f"print({_answer(manifest, name)})" for name in head.outputs),
    ]
    return "\n\n".join(filter(None, (code_block("\n".join(lines), "python"), _usage_of_optimum(manifest))))


def _opened(manifest: Manifest) -> list[str]:
    """Opening the model in its runtime, and its tokenizer; nothing else has to be installed."""
    library, opened = "openvino", 'openvino.Core().compile_model("PATH/openvino_model.xml", "CPU")'
    if _is_onnx(manifest):
        provider = PROVIDERS[manifest.request.target]
        library, opened = "onnxruntime", f'onnxruntime.InferenceSession("PATH/model.onnx", providers=["{provider}"])'
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


def _usage_of_optimum(manifest: Manifest) -> str:
    """The class that takes the place of the checkpoint's own, where optimum has one."""
    head, kind = recorded_head(manifest.request), KINDS[manifest.stages[-1].artifact.kind]
    if head.code is not None or head.auto_class in kind.lacks:
        return ""
    # transformers calls the model without a task AutoModel, and optimum calls it after its task.
    name = kind.prefix + (str(head.auto_class).removeprefix("AutoModel").removeprefix("For") or "FeatureExtraction")
    lines = f'from {kind.module} import {name}\n\nmodel = {name}.from_pretrained("PATH")'
    return f"With {kind.package}, in the place of the checkpoint's class:\n\n{code_block(lines, 'python')}"


def _usage_of_library(manifest: Manifest) -> str:
    """sentence-transformers runs the graph, and the folder's own modules behind it."""
    kind, target = manifest.stages[-1].artifact.kind, manifest.request.target
    options: dict[str, str] = {"file_name": "openvino_model.xml" if kind == "openvino" else "model.onnx"}
    if target in PROVIDERS:
        options["provider"] = PROVIDERS[target]
    lines = [
        "from sentence_transformers import SentenceTransformer",
        "",
        f'model = SentenceTransformer("PATH", backend="{kind}", model_kwargs={json.dumps(options)})',
        'print(model.encode(["A sentence.", "Another one."]).shape)',
    ]
    return code_block("\n".join(lines), "python")


def _usage_of_embedding(manifest: Manifest, sentence: SentenceRecord) -> str:
    """The graph gives the embedding alone."""
    cut = f"max_length={sentence.max_tokens}, " if sentence.max_tokens else ""
    lines = [
        *_opened(manifest),
        f"prompt = {json.dumps(sentence.prompt)}",
        'texts = [prompt + text for text in ("A sentence.", "Another one.")]',
        f'tokens = tokenizer(texts, padding=True, truncation=True, {cut}return_tensors="np")',
        'feed = {name: tokens[name] for name in ("input_ids", "attention_mask")}',
        f"print({_answer(manifest, OUTPUT)}.shape)",
    ]
    return code_block("\n".join(lines), "python")
