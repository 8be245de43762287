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
from optimize.heads import head_of
from optimize.heads.question_answering import NO_ANSWER
from optimize.manifest import Manifest
from optimize.publishing.layouts.handlers import answering
from optimize.report.usage import GRAPHS, PROVIDERS
from optimize.using.asking import read_known
from optimize.using.tasks import TASKS

HANDLERS = Path(answering.__file__).parent
ANSWERING = "answering.py"
REQUIREMENTS = "requirements.txt"
ENGINES = {"onnx": "onnxruntime", "openvino": "openvino"}
SPECIAL = ("mask", "pad", "unk")
EXAMPLES: dict[str, Any] = {
    "text": "A sentence.",
    "question": "Who wrote it?",
    "context": "Ada wrote it.",
    "choices": ["One.", "Two."],
}


def inputs_of(record: Manifest) -> tuple[str, ...]:
    """The fields that an input has."""
    task = TASKS[record.request.head]
    return task.needed or task.fields[:1]


def optional_of(record: Manifest) -> tuple[str, ...]:
    """The fields that an input may have beside those."""
    return tuple(name for name in TASKS[record.request.head].fields if name not in inputs_of(record))


def example_of(record: Manifest) -> Any:
    """An input such as clients send."""
    names = inputs_of(record)
    given = {name: EXAMPLES[name] for name in names}
    if record.request.head == "fill-mask":
        return "A [MASK]."
    return given[names[0]] if len(names) == 1 else given


def write_settings(folder: Path, record: Manifest) -> None:
    """Write `serving.json` into the folder of a model: what `optimize.using` knows of it beside the folder's files."""
    known, kind = read_known(folder, record), record.stages[-1].artifact.kind
    settings: dict[str, Any] = {
        "task": record.request.head,
        "inputs": inputs_of(record),
        "optional": optional_of(record),
        "engine": ENGINES[kind],
        "model": GRAPHS[kind],
        "max_tokens": known.max_tokens,
        "side": known.tokens.side,
        "prompt": known.prompt,
        "no_answer": known.thresholds.get(NO_ANSWER),
        "outputs": head_of(record.request.head, folder).outputs,
    }
    if kind == "onnx":
        settings["provider"] = PROVIDERS[record.request.target]
    settings |= {name: known.tokens.id_of(f"{name}_token") for name in SPECIAL}
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
