"""A model repository of NVIDIA Triton: texts in, answers out, as an ensemble of three models.

The first tokenizes and the last answers, in Triton's Python backend with numpy and tokenizers alone; between them the
graph runs in the ONNX Runtime backend, where requests are put into batches. The graph has a row for each input, or for
each window over a context. What is written is `ModelConfig` in protobuf's text form.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from optimize.artifact import model_files
from optimize.heads import head_of
from optimize.manifest import Manifest
from optimize.publishing.layouts.layout import VERSION, Layout, model_name, move_into
from optimize.publishing.layouts.served import (
    EXAMPLES,
    inputs_of,
    optional_of,
    tokenizing_files,
    write_handler,
    write_settings,
)
from optimize.report.markdown import code_block

FOLDER = "triton"
CONFIG = "config.pbtxt"
MOST_ROWS = 64
"""Inputs of a request, and windows of their contexts."""
BATCHES = "dynamic_batching { max_queue_delay_microseconds: 1000 }"
WARM_SHAPES = ((1, 16), (8, 128))
"""Inputs and tokens that the model is run with before it takes requests."""
GIVEN = "given"
"""The tensor by which inputs go past the graph, beside their rows."""
CHOICES = 4
TYPES = {1: "TYPE_FP32", 10: "TYPE_FP16"}
"""ONNX's element types of outputs, in Triton's words."""


@dataclass(frozen=True)
class Port:
    """An input or output of a model: its name, type, and sizes without that of the batch, -1 where they vary."""

    name: str
    kind: str
    sizes: Sequence[int]
    optional: bool = False

    def text(self) -> str:
        """As a message of `ModelInput` or `ModelOutput`."""
        optional = " optional: true" if self.optional else ""
        return f'{{ name: "{self.name}" data_type: {self.kind} dims: {list(self.sizes)}{optional} }}'


def arrange(folder: Path, record: Manifest) -> str:
    """Make `triton/` a model repository."""
    inner, root, name = move_into(folder, ".model"), folder / FOLDER, model_name(record)
    write_settings(inner, record)
    first, middle, last = names = (f"{name}-tokenize", f"{name}-model", f"{name}-answer")
    fields, tokens, given = _fields(record), _tokens(record), Port(GIVEN, "TYPE_STRING", [1])
    outputs = _outputs(inner / "model.onnx", head_of(record.request.head, inner).outputs)
    answers = [Port("answer", "TYPE_STRING", [1])]
    python, onnx = 'backend: "python"', 'platform: "onnxruntime_onnx"'
    _write(root / first, python, fields, [given, *tokens], [BATCHES, _instances("KIND_CPU", 2)])
    _write(root / last, python, [given, *outputs], answers, [BATCHES, _instances("KIND_CPU", 2)])
    device = "KIND_GPU" if record.request.target == "cuda" else "KIND_CPU"
    warm = [_warm_up(*shape, tokens) for shape in WARM_SHAPES]
    _write(root / middle, onnx, tokens, outputs, [BATCHES, _instances(device, 1), *warm])
    ways = (fields, [given, *tokens]), (tokens, outputs), ([given, *outputs], answers)
    _write(root / name, 'platform: "ensemble"', fields, answers, [_steps(names, ways)])
    for model, handler in ((first, "triton_tokenize.py"), (last, "triton_answer.py")):
        write_handler(root / model / VERSION, f"{handler}>model.py", "triton_requests.py")
        for path in tokenizing_files(inner):
            shutil.copyfile(path, root / model / VERSION / path.name)
    for path in model_files(inner, "onnx"):
        path.rename(root / middle / VERSION / path.name)
    (root / name / VERSION / "ensemble.txt").write_text("An ensemble has no file; Triton wants its folder.\n")
    shutil.rmtree(inner)
    text = _usage(record, name)
    (root / "README.md").write_text(f"# {name}, for Triton\n\n{text}\n", encoding="utf-8")
    return text


def _fields(record: Manifest) -> list[Port]:
    """The texts of an input."""
    ports = [Port(name, "TYPE_STRING", [-1 if name == "choices" else 1]) for name in inputs_of(record)]
    return ports + [Port(name, "TYPE_STRING", [1], optional=True) for name in optional_of(record)]


def _tokens(record: Manifest) -> list[Port]:
    """What the graph reads."""
    sizes = [-1, -1] if record.request.head == "multiple-choice" else [-1]
    return [Port(name, "TYPE_INT64", sizes) for name in ("input_ids", "attention_mask")]


def _outputs(path: Path, names: Collection[str]) -> list[Port]:
    """What the graph gives, of what the head reads."""
    import onnx

    ports = []
    for output in onnx.load(path, load_external_data=False).graph.output:
        if output.name not in names:
            continue
        kind = output.type.tensor_type
        sizes = [each.dim_value if each.HasField("dim_value") else -1 for each in kind.shape.dim][1:]
        ports.append(Port(output.name, TYPES[kind.elem_type], sizes))
    return ports


def _write(folder: Path, what: str, inputs: Iterable[Port], outputs: Iterable[Port], more: Iterable[str]) -> None:
    """Write the config of a model, whose folder has its name, and make its first version."""
    lines = [f'name: "{folder.name}"', what, f"max_batch_size: {MOST_ROWS}"]
    lines += [f"input {each.text()}" for each in inputs]
    # An optional field is one of inputs alone.
    lines += [f"output {each.text()}" for each in outputs]
    (folder / VERSION).mkdir(parents=True)
    (folder / CONFIG).write_text("\n".join([*lines, *more]) + "\n", encoding="utf-8")


def _instances(kind: str, count: int) -> str:
    return f"instance_group {{ kind: {kind} count: {count} }}"


def _warm_up(rows: int, length: int, tokens: Sequence[Port]) -> str:
    """A run before the first request, with padding alone: what is computed depends on no value."""
    sizes = [CHOICES, length] if len(tokens[0].sizes) > 1 else [length]
    inputs = [
        f'inputs {{ key: "{each.name}" value {{ data_type: {each.kind} dims: {sizes} zero_data: true }} }}'
        for each in tokens
    ]
    return f'model_warmup {{ name: "{rows}x{length}" batch_size: {rows} {" ".join(inputs)} }}'


def _steps(names: Sequence[str], ways: Iterable[tuple[Sequence[Port], Sequence[Port]]]) -> str:
    """The models one after the other, each with its inputs and outputs; every tensor goes by one name throughout."""
    lines = []
    for name, (inputs, made) in zip(names, ways, strict=True):
        maps = [f'input_map {{ key: "{each.name}" value: "{each.name}" }}' for each in inputs]
        maps += [f'output_map {{ key: "{each.name}" value: "{each.name}" }}' for each in made]
        lines.append(f'  step {{ model_name: "{name}" model_version: -1 {" ".join(maps)} }}')
    return "\n".join(["ensemble_scheduling {", *lines, "}"])


def _usage(record: Manifest, name: str) -> str:
    texts = []
    for each in inputs_of(record):
        found = EXAMPLES[each] if record.request.head != "fill-mask" else "A [MASK]."
        data = found if isinstance(found, list) else [found]
        texts.append({"name": each, "shape": [1, len(data)], "datatype": "BYTES", "data": data})
    window = f"\n\nContexts of a request make up to {MOST_ROWS} windows." if "context" in inputs_of(record)[1:] else ""
    return (
        f"`{FOLDER}/` is a model repository: `{name}` takes texts and gives answers as JSON. Its Python models need "
        "`pip install tokenizers` in Triton's image.\n\n"
        + code_block(
            "tritonserver --model-repository PATH/triton\n"
            f"curl localhost:8000/v2/models/{name}/infer -d '{json.dumps({'inputs': texts})}'",
            "sh",
        )
        + window
    )


LAYOUT = Layout(
    arrange=arrange, summary="A model repository of Triton: an ensemble of texts to answers", kinds=("onnx",)
)
