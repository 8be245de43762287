"""Bytes of a model: its files, what gzip makes of them, and what its tensors hold by part of the model and data type.

Parts are read off names, without loading weights: of the tensor where it kept its own
("distilbert.embeddings.word_embeddings.weight_quantized"), else of the nodes that consume it,
since exporters call folded weights "onnx::MatMul_345" and keep the module's path in the node.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from optimize.artifact import Artifact, gzip_bytes, stored_tensors
from optimize.checkpoint import encoder_flops, read_config
from optimize.manifest import Size

if TYPE_CHECKING:
    import onnx

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


@dataclass(frozen=True)
class Tensors:
    """(name, data type, bytes) of each tensor, and for each value the (node, its results) using it."""

    found: Sequence[tuple[str, str, int]]
    users: Mapping[str, Sequence[tuple[str, tuple[str, ...]]]] = field(default_factory=dict)


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


def part_of(name: str, users: Mapping[str, Sequence[tuple[str, tuple[str, ...]]]]) -> str:
    """The part that a tensor's name tells, else the nearest of its consumers whose name tells one."""
    part, values, seen = named_part(name), [name], {name}
    for _ in range(MAX_HOPS):
        if part != "other":
            break
        nodes = [user for value in values for user in users.get(value, ())]
        part = next((found for node, _ in nodes if (found := named_part(node)) != "other"), "other")
        values = [result for _, results in nodes for result in results if result not in seen]
        seen.update(values)
    return part


def named_part(name: str) -> str:
    """The part of the model that a name tells, or "other"."""
    return next((part for part, pattern in PARTS if re.search(pattern, name.lower())), "other")


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
    import onnx

    found, users = [], {}
    for path in files:
        if path.suffix != ".onnx":
            continue
        graph = onnx.load(path, load_external_data=False).graph
        found += [_described(name, tensor) for name, tensor in _tensors(graph)]
        users.update(_users((node.name, node.input, node.output) for node in graph.node))
    return Tensors(found, users)


def _tensors(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    yield from ((tensor.name, tensor) for tensor in graph.initializer)
    for node in graph.node:
        if node.op_type == "Constant":
            yield from ((node.output[0], each.t) for each in node.attribute if each.name == "value")


def _described(name: str, tensor: onnx.TensorProto) -> tuple[str, str, int]:
    import onnx

    dtype = onnx.TensorProto.DataType.Name(tensor.data_type)
    count = prod(tensor.dims)
    if dtype in ("INT4", "UINT4"):
        return name, dtype, -(-count // 2)
    return name, dtype, count * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize


def _users(
    nodes: Iterable[tuple[str, Iterable[str], Iterable[str]]],
) -> dict[str, list[tuple[str, tuple[str, ...]]]]:
    users: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
    for name, takes, gives in nodes:
        for value in takes:
            users.setdefault(value, []).append((name, tuple(gives)))
    return users


def read_openvino(files: Sequence[Path]) -> Tensors:
    """Constants of OpenVINO IR, from the XML alone; two that share bytes count once."""
    from xml.etree import ElementTree

    found: list[tuple[str, str, int]] = []
    users: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
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
