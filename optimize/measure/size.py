"""Bytes of a model: its files, what gzip makes of them, and what its tensors hold by part of the model and data type.

Parts are read off names, without loading weights: of the tensor where it kept its own
("distilbert.embeddings.word_embeddings.weight_quantized"), else of the nodes that consume it,
since exporters call folded weights "onnx::MatMul_345" and keep the module's path in the node.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from optimize.artifact import Artifact, gzip_bytes, stored_tensors
from optimize.checkpoint import encoder_flops, read_config
from optimize.manifest import Size

if TYPE_CHECKING:
    import onnx_ir as ir

PARTS: tuple[tuple[str, str], ...] = (
    ("head", r"classifier|qa_outputs|vocab_"),
    ("embedding", r"embedlayernorm"),
    ("norm", r"layer_?norm|skiplayernorm"),
    ("embedding", r"embed"),
    ("attention", r"attention|qkv|[qkv]_lin|out_lin"),
    ("ffn", r"ffn|lin[12]|gelu"),
)
DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "BOOL": "bool",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "I4": "int4",
    "U4": "uint4",
    "FLOAT": "float32",
    "DOUBLE": "float64",
    "BOOLEAN": "bool",
}
MAX_HOPS = 6
FLOPS_TOKENS = 128
User = tuple[str, tuple[str, ...]]
"""A node's name and those of its results."""


@dataclass(frozen=True)
class Tensors:
    """(name, data type, bytes) of each tensor, and for each value the nodes that use it."""

    found: Sequence[tuple[str, str, int]]
    users: Mapping[str, Sequence[User]] = field(default_factory=dict)


def measure_size(
    artifact: Artifact, reference_bytes: int, *, read: Callable[[Sequence[Path]], Tensors], compressed: bool = False
) -> Size:
    """Size of an artifact's model files, and its ratio to the FP32 weights' `reference_bytes`.

    `read` reads files of the artifact's kind. `compressed` takes some seconds for each 100 MB.
    """
    tensors = read(artifact.model_files())
    parts, dtypes = Counter[str](), Counter[str]()
    for name, dtype, size in tensors.found:
        parts[part_of(name, tensors.users)] += size
        dtypes[DTYPES.get(dtype.upper(), dtype.lower())] += size
    total = artifact.model_bytes()
    return Size(
        bytes=total,
        ratio=total / reference_bytes,
        by_component=dict(parts.most_common()),
        by_dtype=dict(dtypes.most_common()),
        parameters=sum(count_values(name, size) for name, size in dtypes.items()),
        encoder_flops=flops_of(artifact.path),
        compressed_bytes=gzip_bytes(artifact.model_files()) if compressed else None,
    )


def count_values(dtype: str, size: int) -> int:
    """How many numbers of a type fit into so many bytes; shapes and indices, of wider integers, are no parameters."""
    bits = int(re.sub(r"\D", "", dtype) or 0)
    return size * 8 // bits if bits and (bits <= 8 or "float" in dtype) else 0


def flops_of(folder: Path) -> int | None:
    """What the config beside a model, if there is one, says its layers take for one text of `FLOPS_TOKENS`."""
    path = folder / "config.json"
    if not path.exists():
        return None
    return encoder_flops(read_config(folder), tokens=FLOPS_TOKENS, where=str(path))


def part_of(name: str, users: Mapping[str, Sequence[User]]) -> str:
    """The part that a tensor's name tells, else the nearest of its consumers whose name tells one."""
    part, nearest, seen = named_part(name), [name], {name}
    for _ in range(MAX_HOPS):
        following: list[str] = []
        for node, results in (user for value in nearest for user in users.get(value, ())):
            part = named_part(node) if part == "other" else part
            following += results
        if part != "other":
            break
        nearest = [value for value in following if value not in seen]
        seen.update(nearest)
    return part


def named_part(name: str) -> str:
    """The part of the model that a name tells, or "other"."""
    for part, pattern in PARTS:
        if re.search(pattern, name.lower()):
            return part
    return "other"


def read_torch(files: Sequence[Path]) -> Tensors:
    """Tensors of safetensors files, from their headers alone."""
    found = []
    for path in files:
        if path.suffix != ".safetensors":
            continue
        for name, tensor in stored_tensors(path).items():
            found.append((name, tensor.dtype, tensor.size_bytes))
    return Tensors(found)


def read_onnx(files: Sequence[Path]) -> Tensors:
    """Initializers and constants of ONNX files; data kept outside the file is not loaded."""
    import onnx_ir
    from onnx_ir.convenience import create_value_mapping

    found: list[tuple[str, str, int]] = []
    users: dict[str, Sequence[User]] = {}
    for path in files:
        if path.suffix != ".onnx":
            continue
        graph = onnx_ir.load(path).graph
        tensors = [(name, weight.const_value) for name, weight in graph.initializers.items()]
        for node in graph:
            if node.op_type == "Constant" and "value" in node.attributes:
                tensors.append((node.outputs[0].name, node.attributes["value"].as_tensor()))
        found += [(name, tensor.dtype.name, tensor.nbytes) for name, tensor in tensors]
        users |= {name: _users(value) for name, value in create_value_mapping(graph).items()}
    return Tensors(found, users)


def _users(value: ir.Value) -> list[User]:
    return [(node.name, tuple(result.name for result in node.outputs)) for node in value.consumers()]


def read_openvino(files: Sequence[Path]) -> Tensors:
    """Constants of OpenVINO IR, from the XML alone; two that share bytes count once."""
    from xml.etree import ElementTree

    found: list[tuple[str, str, int]] = []
    users: dict[str, list[User]] = {}
    for path in files:
        if path.suffix != ".xml":
            continue
        root = ElementTree.parse(path).getroot()
        names: dict[str | None, str] = {}
        places: set[tuple[str | None, str | None]] = set()
        for layer in root.iterfind("layers/layer"):
            # A name need not be unique in IR, and an unnamed layer is told apart by its id.
            names[layer.get("id")] = layer.get("name") or f"id {layer.get('id')}"
            data = layer.find("data")
            if layer.get("type") != "Const" or data is None or (data.get("offset"), data.get("size")) in places:
                continue
            places.add((data.get("offset"), data.get("size")))
            found.append((names[layer.get("id")], data.get("element_type", "other"), int(data.get("size", 0))))
        for edge in root.iterfind("edges/edge"):
            source, sink = names[edge.get("from-layer")], names[edge.get("to-layer")]
            users.setdefault(source, []).append((sink, (sink,)))
    return Tensors(found, users)
