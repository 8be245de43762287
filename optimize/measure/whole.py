"""Whether the files of a model folder are a whole model of a head: what is opened here is all that its folder hands on.

An ONNX file may keep tensors in further files, anywhere on the machine, and an OpenVINO model keeps them beside its
XML. Only what lies in the folder is covered by its digest. Nothing is run, and no weights are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from optimize.artifact import Artifact, model_files, sealed_files, stored_tensors
from optimize.errors import SealError, first_line
from optimize.interfaces import Head
from optimize.runtimes import onnx_runtime, openvino

if TYPE_CHECKING:
    import onnx

INPUTS = frozenset({"input_ids", "attention_mask"})


def require_whole_torch(artifact: Artifact, head: Head) -> None:
    """Refuse a checkpoint without weights, or with a file of weights that says other than it holds."""
    files = [path for path in model_files(artifact.path, "torch") if path.suffix == ".safetensors"]
    if not files:
        raise SealError(f"{artifact.path}: has no weights for head '{head.name}'; run it again")
    for path in files:
        stored_tensors(path)


def require_whole_onnx(artifact: Artifact, head: Head) -> None:
    """Refuse a folder whose model is another head's, or with an ONNX file that does not parse or needs other files."""
    path, present = artifact.path / onnx_runtime.MODEL_FILE, sealed_files(artifact.path)
    counted = {*artifact.model_files()} & {*present}  # as its size, and no links
    for each in sorted({path, *(file for file in present if file.suffix == ".onnx")}):
        model = _read_onnx(each)
        if each == path:
            inputs = {value.name for value in model.graph.input} - {value.name for value in model.graph.initializer}
            _require_head(path, head, inputs=inputs, outputs={value.name for value in model.graph.output})
        for tensor in external_tensors(model):
            _require_inside(each, tensor, counted)


def _read_onnx(path: Path) -> onnx.ModelProto:
    """An ONNX file without the data that it keeps elsewhere."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        return onnx.load(path, load_external_data=False)
    except (DecodeError, OSError) as error:
        raise SealError(f"{path}: is not a readable ONNX model ({first_line(error)}); run it again") from error


def external_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """All tensors that an ONNX model keeps in other files, those of subgraphs and functions included."""
    import onnx

    left: list[Any] = [model]
    while left:
        message = left.pop()
        if isinstance(message, onnx.TensorProto):
            if message.data_location == onnx.TensorProto.EXTERNAL:
                yield message
            continue
        # Whatever holds tensors is found, whichever field of the format it is in.
        for field, value in message.ListFields():
            if field.message_type is not None:
                left += [value] if hasattr(value, "ListFields") else value


def _require_inside(path: Path, tensor: onnx.TensorProto, files: set[Path]) -> None:
    """Refuse a tensor whose data are not in one of the folder's own files."""
    said = {entry.key: entry.value for entry in tensor.external_data}
    location = said.get("location", "")
    apart = PurePosixPath(location).parts + PureWindowsPath(location).parts
    absolute = PurePosixPath(location).is_absolute() or PureWindowsPath(location).drive
    if absolute or ".." in apart or path.parent / location not in files:
        raise SealError(
            f"{path}: keeps tensor '{tensor.name}' in '{location}', which is not a file of the model's; run it again"
        )
    offset, length = said.get("offset", "0"), said.get("length", "0")
    size = (path.parent / location).stat().st_size
    if not (offset.isdecimal() and length.isdecimal()) or int(offset) + int(length) > size:
        raise SealError(f"{path}: tensor '{tensor.name}' goes beyond the end of '{location}'; run it again")


def require_whole_openvino(artifact: Artifact, head: Head) -> None:
    """Refuse a folder whose model does not parse, is another head's, or lacks weights; so for a tokenizer beside it."""
    path = artifact.path / openvino.MODEL_FILE
    for each in sorted({path, *artifact.path.glob("*.xml")}):
        names = _names_of_ir(each)
        if each == path:
            _require_head(path, head, inputs=INPUTS & names, outputs=names)


def _names_of_ir(path: Path) -> set[str]:
    """The names of an OpenVINO model's values; refuse one that does not parse or lacks weights."""
    try:
        root = ElementTree.parse(path).getroot()
        ends = [_end(data) for data in root.iterfind("layers/layer[@type='Const']/data")]
    except (ElementTree.ParseError, OSError, ValueError) as error:
        raise SealError(f"{path}: is not a readable OpenVINO model ({first_line(error)}); run it again") from error
    weights = path.with_suffix(".bin")
    if not weights.is_file() or weights.stat().st_size < max(ends, default=0):
        raise SealError(f"{weights}: is missing or shorter than {path.name} says; run it again")
    return {name for port in root.iterfind("layers/layer/output/port") for name in port.get("names", "").split(",")}


def _end(data: ElementTree.Element) -> int:
    return int(data.get("offset", 0)) + int(data.get("size", 0))


def _require_head(path: Path, head: Head, *, inputs: Set[str], outputs: Set[str]) -> None:
    if not inputs or inputs - INPUTS or set(head.outputs) - outputs:
        raise SealError(
            f"{path}: is not a model of head '{head.name}', from {' and '.join(sorted(INPUTS))} to "
            f"{' and '.join(head.outputs)}; run it again"
        )
