"""The kinds of model folders, in one table: how each is opened, what its files hold, and what users load it with.

Which files hold the model stands in `artifact.MODEL_FILES`, because stages ask for it and lie below this table.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from optimize.artifact import Artifact, Kind
from optimize.interfaces import Head, Session
from optimize.measure.size import Tensors, read_onnx, read_openvino, read_torch
from optimize.measure.whole import require_whole_onnx, require_whole_openvino, require_whole_torch
from optimize.runtimes.half import open_rounded
from optimize.runtimes.openvino import load_openvino
from optimize.runtimes.pytorch import TorchRuntime, open_torch
from optimize.targets import openvino


@dataclass(frozen=True)
class ModelKind:
    """One kind of model folder.

    `load` imports its library, so that the seconds of `open` are those of the model alone. `open` takes a folder,
    threads and the head, and opens the model on this machine's CPU. `tensors` reads what the model's files hold.
    `require_whole` refuses a folder whose files are not a whole model of the head.

    Users load a model with a class of `module` whose name begins with `prefix` and ends as the head's auto class does;
    `package` has that module; `lacks` names the auto classes that the module has no counterpart of.
    """

    load: Callable[[], object]
    open: Callable[[Path, int, Head], Session]
    tensors: Callable[[Sequence[Path]], Tensors]
    require_whole: Callable[[Artifact, Head], None]
    module: str
    prefix: str
    package: str
    lacks: frozenset[str] = frozenset()


KINDS: dict[Kind, ModelKind] = {
    "torch": ModelKind(
        load=lambda: importlib.import_module("transformers.models.distilbert.modeling_distilbert"),
        open=lambda folder, threads, head: open_torch(folder, threads, head, TorchRuntime()),
        tensors=read_torch,
        require_whole=require_whole_torch,
        module="transformers",
        prefix="AutoModelFor",
        package="transformers",
    ),
    "onnx": ModelKind(
        load=lambda: importlib.import_module("onnxruntime"),
        # Whatever its target: CPUs compute FP16 graphs as GPUs do only in this form.
        open=open_rounded,
        tensors=read_onnx,
        require_whole=require_whole_onnx,
        module="optimum.onnxruntime",
        prefix="ORTModelFor",
        package="optimum-onnx, which goes with transformers 4.57",
    ),
    "openvino": ModelKind(
        load=load_openvino,
        open=lambda folder, threads, head: openvino.open_session(folder, threads, head, openvino.Runtime()),
        tensors=read_openvino,
        require_whole=require_whole_openvino,
        module="optimum.intel",
        prefix="OVModelFor",
        package="optimum-intel",
        lacks=frozenset({"AutoModelForMultipleChoice"}),
    ),
}
