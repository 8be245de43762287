"""PyTorch, which every target is compared with: the FP32 reference, and on GPUs what else users run.

A model is opened the way users do it: `from_pretrained`, `eval`, `inference_mode`, attention through
scaled_dot_product_attention, as transformers chooses by default.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from optimize.checkpoint import load_model
from optimize.interfaces import Feed, Head, Params, Session
from optimize.runtimes.nvidia import gpu_errors
from optimize.runtimes.quiet import undisturbed

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


class TorchRuntime(Params):
    """How PyTorch runs a model that others are compared with."""

    device: str = Field(default="cpu", description="PyTorch's name of the device: `cpu`, `cuda:0`.")
    dtype: Literal["float32", "float16", "bfloat16", "int8"] = Field(
        default="float32",
        description="Type of weights and activations. `int8` is that of linear layers' weights, with activations "
        "rounded while the model runs.",
    )
    compiled: bool = Field(default=False, description="Whether the model runs through `torch.compile`.")


def on_cpu(_: Params) -> Mapping[str, TorchRuntime]:
    """The references of a target that is a CPU: PyTorch FP32 there."""
    return {"pytorch-fp32": TorchRuntime()}


def open_torch(folder: Path, threads: int, head: Head, runtime: TorchRuntime) -> Session:
    """Open a torch artifact; the session maps int64 arrays to float32 arrays named by the head.

    A feed that `place` put on the device gives tensors that stay there, once they are computed.
    """
    import torch

    torch.set_num_threads(threads)
    model = load_model(folder, head.auto_class).eval()
    with _errors(runtime):
        model = (
            _quantized(model) if runtime.dtype == "int8" else model.to(runtime.device, getattr(torch, runtime.dtype))
        )
    run = torch.compile(model) if runtime.compiled else model

    def session(feed: Feed) -> Feed:
        placed = isinstance(feed["input_ids"], torch.Tensor)
        with torch.inference_mode(), _errors(runtime):
            outputs = run(**(feed if placed else place(feed, runtime)))
            if placed:
                torch.cuda.synchronize()  # kernels are launched and not waited for
                return {name: outputs[name] for name in head.outputs}
            return {name: outputs[name].float().cpu().numpy() for name in head.outputs}

    return session


def _quantized(model: PreTrainedModel) -> PreTrainedModel:
    """PyTorch's own dynamic quantization of linear layers, deprecated there and without a successor on CPUs."""
    import torch
    from torch.ao.quantization import quantize_dynamic

    with undisturbed():
        quantized: PreTrainedModel = quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
    return quantized


def _errors(runtime: TorchRuntime) -> AbstractContextManager[None]:
    """What a GPU says in many lines, in one."""
    return nullcontext() if runtime.device == "cpu" else gpu_errors(f"PyTorch in {runtime.dtype} on {runtime.device}")


def place(feed: Feed, runtime: TorchRuntime) -> dict[str, torch.Tensor]:
    """A feed as tensors on the device."""
    import torch

    return {name: torch.from_numpy(array).to(runtime.device) for name, array in feed.items()}
