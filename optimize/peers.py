"""What users would pick in place of this package, built by its makers' own recipes and measured in the same rounds.

PyTorch in BF16 and with dynamic INT8, ONNX Runtime's dynamic INT8 and NNCF's INT8 for OpenVINO, each with the defaults
of its library on the plain export. Nothing of ours is in them.
https://docs.pytorch.org/docs/stable/quantization.html
https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
https://docs.openvino.ai/2025/openvino-workflow/model-optimization-guide/quantizing-models-post-training.html
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from optimize import cache
from optimize.artifact import Artifact, copy_companions
from optimize.building import Loaded, own_reference
from optimize.evaluate.judge import pad_id_of
from optimize.evaluate.predict import collate
from optimize.interfaces import Facts
from optimize.machine import environment
from optimize.measure.subjects import Subject
from optimize.runtimes.onnx_runtime import MODEL_FILE as ONNX_FILE
from optimize.runtimes.openvino import MODEL_FILE as OPENVINO_FILE
from optimize.runtimes.pytorch import TorchRuntime
from optimize.runtimes.quiet import silent
from optimize.targets import TARGETS

Recipe = Callable[[Artifact, Path, Loaded], None]
"""Writes the model of the target's plain conversion, quantized, into a folder."""
IN_PYTORCH: Mapping[str, TorchRuntime] = {
    "pytorch-bf16": TorchRuntime(dtype="bfloat16"),
    "pytorch-int8": TorchRuntime(dtype="int8"),
}


@dataclass(frozen=True)
class Peer:
    """A recipe of another library for a target; `needs` are the distributions that its result depends on."""

    target: str
    recipe: Recipe
    needs: tuple[str, ...]


def build_peers(loaded: Loaded) -> tuple[list[Subject], dict[str, str]]:
    """All that can be built and run on this machine's CPU, and the reasons why others cannot."""
    found: list[Subject] = []
    left_out: dict[str, str] = {}
    for name, runtime in IN_PYTORCH.items():
        reason = environment.why_no_bf16() if runtime.dtype == "bfloat16" else None
        if reason:
            left_out[name] = reason
        else:
            found.append(Subject(name, loaded.origin.artifact, "pytorch", runtime))
    for name, peer in PEERS.items():
        absent = [needed for needed in peer.needs if environment.version(needed) == "absent"]
        if absent:
            left_out[name] = f"{absent[0]} is not installed"
        else:
            found.append(_built(name, peer, loaded))
    return found, left_out


def _built(name: str, peer: Peer, loaded: Loaded) -> Subject:
    target = TARGETS[peer.target]
    plain = own_reference(loaded, target.name, target.runtime())
    loaded.progress.say(f"peer {name}")
    entry = cache.fetch(
        loaded.plan.cache,
        {
            "peer": name,
            "input": plain.artifact.digest,
            "data": loaded.splits.records["calibration"].digest,
            "versions": {needed: environment.version(needed) for needed in peer.needs},
        },
        target.runs,
        lambda out: _write(peer, plain.artifact, out, loaded),
        progress=loaded.progress,
    )
    return Subject(name, entry.artifact, target.name, target.runtime())


def _write(peer: Peer, plain: Artifact, out: Path, loaded: Loaded) -> Facts:
    peer.recipe(plain, out, loaded)
    copy_companions(plain.path, plain.kind, out)
    return {}


def quantize_by_onnx_runtime(plain: Artifact, out: Path, _: Loaded) -> None:
    """`quantize_dynamic` after its own preparation, by default but for the inference of shapes, which fails here."""
    from onnxruntime.quantization import quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = out / "prepared.onnx"
    with silent():
        quant_pre_process(plain.path / ONNX_FILE, prepared, skip_symbolic_shape=True)
        quantize_dynamic(prepared, out / ONNX_FILE)
    prepared.unlink()


def quantize_by_nncf(plain: Artifact, out: Path, loaded: Loaded) -> None:
    """`nncf.quantize` for a transformer, the rest by default, on the calibration texts one by one."""
    from optimize.quantization.nncf.session import heard
    from optimize.runtimes.openvino import load_openvino, read_model

    pad_id = pad_id_of(loaded.origin.artifact.path)
    texts = [collate([feature], pad_id=pad_id) for feature in loaded.calibration.features]
    with heard(loaded.progress) as nncf:
        model = nncf.quantize(read_model(plain.path), nncf.Dataset(texts), model_type=nncf.ModelType.TRANSFORMER)
    load_openvino().save_model(model, out / OPENVINO_FILE, compress_to_fp16=False)


PEERS: Mapping[str, Peer] = {
    "onnxruntime-dynamic": Peer("cpu", quantize_by_onnx_runtime, ("onnxruntime", "onnx")),
    "nncf-int8": Peer("openvino", quantize_by_nncf, ("nncf", "openvino")),
}
