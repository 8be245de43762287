"""A model beside the code that answers for it: what layouts of servers in Python share.

The folder holds the model's files, `answering.py`, and `serving.json`, which says what the code has to know and no
file of the checkpoint says: the task, its inputs, the engine, the longest text.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from optimize.artifact import model_files
from optimize.checkpoint import read_config
from optimize.heads import head_of
from optimize.manifest import Manifest
from optimize.publishing.layouts.handlers import answering
from optimize.report.usage import GRAPHS, PROVIDERS

HANDLERS = Path(answering.__file__).parent
ANSWERING = "answering.py"
REQUIREMENTS = "requirements.txt"
INPUTS = {"question-answering": ("question", "context"), "multiple-choice": ("context", "choices")}
OPTIONAL = {"text-classification": ("text_pair",)}
ENGINES = {"onnx": "onnxruntime", "openvino": "openvino"}
SPECIAL = ("mask", "unk")
UNLIMITED = 2**30
"""What a tokenizer that has no limit of its own is at least said to take."""
EXAMPLES: dict[str, Any] = {
    "text": "A sentence.",
    "text_pair": "Another one.",
    "question": "Who wrote it?",
    "context": "Ada wrote it.",
    "choices": ["One.", "Two."],
}


def inputs_of(record: Manifest) -> tuple[str, ...]:
    """The fields that an input has."""
    return INPUTS.get(record.request.head, ("text",))


def example_of(record: Manifest) -> Any:
    """An input such as clients send."""
    names = inputs_of(record)
    given = {name: EXAMPLES[name] for name in names}
    if record.request.head == "fill-mask":
        return "A [MASK]."
    return given[names[0]] if len(names) == 1 else given


def write_settings(folder: Path, record: Manifest) -> None:
    """Write `serving.json` into the folder of a model."""
    from tokenizers import Tokenizer

    config, kind = read_config(folder), record.stages[-1].artifact.kind
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    words = Tokenizer.from_file(str(folder / "tokenizer.json"))
    sentence = record.source.sentence
    limits = [
        config.get("max_position_embeddings"),
        tokenizer.get("model_max_length"),
        sentence and sentence.max_tokens,
    ]
    settings: dict[str, Any] = {
        "task": record.request.head,
        "inputs": inputs_of(record),
        "optional": OPTIONAL.get(record.request.head, ()),
        "engine": ENGINES[kind],
        "model": GRAPHS[kind],
        "max_tokens": int(min(limit for limit in limits if limit and limit < UNLIMITED)),
        "prompt": sentence.prompt if sentence else "",
        "outputs": head_of(record.request.head, folder).outputs,
    }
    if kind == "onnx":
        settings["provider"] = PROVIDERS[record.request.target]
    for name in SPECIAL:
        token = tokenizer.get(f"{name}_token")
        token = token["content"] if isinstance(token, dict) else token
        settings[name] = None if token is None else words.token_to_id(token)
    _write_json(folder / answering.SETTINGS, settings)


def write_handler(folder: Path, *names: str) -> None:
    """Copy `answering.py` and handlers; "triton_answer.py>model.py" renames one."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (ANSWERING, *names):
        source, _, target = name.partition(">")
        shutil.copyfile(HANDLERS / source, folder / (target or source))


def write_requirements(path: Path, record: Manifest, others: Sequence[str] = ()) -> None:
    """Write what a server has to install: the engine at the version that the model was judged with, and tokenizers."""
    versions = record.environment.versions
    engine = ENGINES[record.stages[-1].artifact.kind]
    if record.request.target == "cuda":
        engine = "onnxruntime-gpu"
    lines = [f"{engine}=={versions[engine]}" if engine in versions else engine, "numpy", "tokenizers", *others]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def tokenizing_files(folder: Path) -> list[Path]:
    """Files of a served folder that say how texts become ids and ids become words, without the model itself."""
    return [folder / name for name in ("tokenizer.json", "config.json", answering.SETTINGS)]


def engine_files(folder: Path, record: Manifest) -> list[Path]:
    """The files that hold the model itself."""
    return model_files(folder, record.stages[-1].artifact.kind)


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
