"""How to use a published model: the Python of its card."""

from __future__ import annotations

import json

from optimize.heads import HEADS
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
    head, kind = HEADS[manifest.request.head], KINDS[manifest.stages[-1].artifact.kind]
    if gives_tokens(manifest):
        return _usage_of_library(manifest)
    if manifest.source.sentence is not None:
        return _usage_of_embedding(manifest, manifest.source.sentence)
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
    return code_block("\n".join(lines), "python")


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
    """The graph gives the embedding alone, and needs nothing but its runtime."""
    library, opened, embeddings = (
        "openvino",
        'openvino.Core().compile_model("PATH/openvino_model.xml", "CPU")',
        f'model(feed)["{OUTPUT}"]',
    )
    if manifest.stages[-1].artifact.kind == "onnx":
        provider = PROVIDERS[manifest.request.target]
        library, opened, embeddings = (
            "onnxruntime",
            f'onnxruntime.InferenceSession("PATH/model.onnx", providers=["{provider}"])',
            f'model.run(["{OUTPUT}"], feed)[0]',
        )
    cut = f"max_length={sentence.max_tokens}, " if sentence.max_tokens else ""
    lines = [
        f"import {library}",
        "from transformers import AutoTokenizer",
        "",
        f"model = {opened}",
        'tokenizer = AutoTokenizer.from_pretrained("PATH")',
        f"prompt = {json.dumps(sentence.prompt)}",
        'texts = [prompt + text for text in ("A sentence.", "Another one.")]',
        f'tokens = tokenizer(texts, padding=True, truncation=True, {cut}return_tensors="np")',
        'feed = {name: tokens[name] for name in ("input_ids", "attention_mask")}',
        f"print({embeddings}.shape)",
    ]
    return code_block("\n".join(lines), "python")
