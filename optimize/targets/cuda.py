"""NVIDIA GPUs through ONNX Runtime's CUDA and TensorRT execution providers.

Latency is measured twice: from this machine's memory and back, which is what a caller waits for, and on the device
alone. Where there is no GPU a model can be built all the same, and its numerics checked on the CPU provider.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from optimize.artifact import folder_digest
from optimize.interfaces import Feed, Head, Params, Session, Target
from optimize.machine.environment import cache_root
from optimize.runtimes import cuda_session, nvidia
from optimize.runtimes.cuda_machine import CUDA, TENSORRT, cannot_compile, dotted, load_libraries, why_unfit
from optimize.runtimes.half import open_rounded
from optimize.runtimes.lengths import at_lengths, fit, fitting, used_tokens
from optimize.runtimes.onnx_runtime import CPU, MODEL_FILE
from optimize.runtimes.pytorch import TorchRuntime

PROVIDERS = {"cuda": CUDA, "tensorrt": TENSORRT}


class Runtime(Params):
    """How a model runs on a GPU."""

    device: int = Field(default=0, ge=0, description="CUDA's number of the GPU.")
    provider: Literal["cuda", "tensorrt", "cpu"] = Field(
        default="cuda",
        description="`cuda` runs ONNX Runtime's own kernels. `tensorrt` compiles engines, which takes minutes. "
        "`cpu` computes the same numbers without a GPU, for building only.",
    )
    cuda_graph: bool = Field(
        default=False,
        description="Record what a batch of each shape launches, and replay it. Pays for small batches; needs "
        "`lengths` and provider `cuda`.",
    )
    lengths: tuple[int, ...] = Field(
        default=(),
        description="Rising lengths, in tokens, to the next of which texts are padded; batches of mixed length run "
        "in parts, one for each length. With `tensorrt`, engines take texts of the first to the last of "
        "them.",
    )
    tf32: bool = Field(
        default=False, description="Let FP32 products be rounded to TF32, which has 10 bits of mantissa."
    )
    most_batch: int = Field(default=32, ge=1, description="Largest batch that TensorRT's engines take.")
    engine_cache: Path | None = Field(
        default=None,
        description="Folder that TensorRT's engines are kept in. Left out, one in the user's cache folder.",
    )

    @field_validator("lengths", mode="before")
    @classmethod
    def _as_tuple(cls, value: object) -> object:
        return tuple(value.split()) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _consistent(self) -> Runtime:
        if list(self.lengths) != sorted(set(self.lengths)) or any(length < 1 for length in self.lengths):
            raise ValueError("lengths rise from 1 up, such as '16 64 512'")
        if self.cuda_graph and not self.lengths:
            raise ValueError(
                "a CUDA graph is recorded for each length; give 'lengths' with cuda_graph, such as '16 64 512'"
            )
        if self.cuda_graph and self.provider == "tensorrt":
            raise ValueError("cuda_graph is for provider cuda; leave it out with tensorrt")
        if self.provider == "tensorrt" and not self.lengths:
            raise ValueError(
                "engines are built for a range of lengths; give 'lengths' with tensorrt, such as '16 128 512'"
            )
        return self


def unavailable(runtime: Runtime) -> str | None:
    """Why a model cannot be run here with these settings, or None."""
    if runtime.provider == "cpu":
        return "provider cpu computes numerics only; add --build-only, or choose provider cuda or tensorrt"
    return why_unfit(runtime.device, PROVIDERS[runtime.provider])


def describe(runtime: Runtime) -> dict[str, str]:
    """The GPU, its driver and the provider."""
    if runtime.provider == "cpu":
        return {"device": "CPU", "provider": "cpu, for numerics only"}
    import onnxruntime

    driver = nvidia.find_driver()
    device = driver.devices[runtime.device]
    return {
        "device": f"cuda:{runtime.device}",
        "full_name": device.name,
        "compute_capability": dotted(device.capability),
        "memory": f"{device.memory_bytes / 2**30:.0f} GiB",
        "capabilities": "FP32, FP16, INT8",
        "cuda": f"driver {dotted(driver.cuda)}, onnxruntime {onnxruntime.cuda_version}",
        "provider": runtime.provider,
        "torch_compile": cannot_compile() or "measured",
    }


def references(runtime: Runtime) -> Mapping[str, TorchRuntime]:
    """What else users run: PyTorch FP32, FP16 with SDPA, and FP16 compiled where that can be done, on the same GPU."""
    if runtime.provider == "cpu":
        return {"pytorch-fp32": TorchRuntime()}
    device = f"cuda:{runtime.device}"
    half = TorchRuntime(device=device, dtype="float16")
    ways = {"pytorch-fp32": TorchRuntime(device=device), "pytorch-fp16": half}
    compiled = {} if cannot_compile() else {"pytorch-fp16-compiled": half.model_copy(update={"compiled": True})}
    return {**ways, **compiled}


def refuses(steps: Iterable[tuple[str, Params]], runtime: Runtime) -> str | None:
    """Stages whose operators have no kernel on GPUs, with the reason."""
    for stage, params in steps:
        if stage == "quantize_dynamic":
            return (
                "quantize_dynamic: DynamicQuantizeLinear has no CUDA kernel, so activations go to the CPU and back in "
                "every layer (onnxruntime issue 10267: 12 ms became 232); use the pipeline 'cuda' or 'cuda-int8'"
            )
        if stage == "quantize_neural_compressor":
            return (
                "quantize_neural_compressor: writes unsigned activations, which TensorRT does not take; use 'cuda-int8'"
            )
        if stage == "quantize_static":
            asked = params.model_dump()
            if (asked["format"], asked["activation_type"], asked["symmetric"]) != ("qdq", "int8", True):
                return (
                    "quantize_static: TensorRT takes only 'format: qdq, activation_type: int8, symmetric: true'; set it"
                )
            if runtime.provider == "cuda":
                return "quantize_static: provider cuda computes INT8 in FP32; set 'runtime: {provider: tensorrt}'"
    return None


def open_session(folder: Path, threads: int, head: Head, runtime: Runtime) -> Session:
    """Open an ONNX artifact; the session maps int64 arrays to float32 arrays named by the head.

    A feed that `place` put on the GPU gives outputs that stay there. Raises UnavailableError where nodes would run on
    the CPU, or the GPU's memory is too small.
    """
    if runtime.provider == "cpu":
        run = open_rounded(folder, threads, head, quantized_in_float=True)
    else:
        load_libraries(PROVIDERS[runtime.provider])
        session = cuda_session.create(folder / MODEL_FILE, threads, providers(folder / MODEL_FILE, runtime))
        run = cuda_session.make_session(
            session, head, device="cuda", index=runtime.device, graphs=runtime.cuda_graph, where=folder.name
        )
    if not runtime.lengths:
        return run
    parts = at_lengths(run, runtime.lengths, head)
    # `place` has padded a placed feed to one of the lengths already.
    return lambda feed: run(feed) if cuda_session.is_placed(feed) else parts(feed)


def place(feed: Feed, runtime: Runtime) -> Feed:
    """A feed in the GPU's memory; with `lengths`, padded to the one that its longest text fits in."""
    if runtime.lengths:
        # One length for all of them: a batch that is split could not stay where it lies.
        length = fitting(int(used_tokens(feed["attention_mask"]).max()), runtime.lengths)
        feed = {name: fit(array, length) for name, array in feed.items()}
    return cuda_session.place(feed, device="cuda", index=runtime.device)


def providers(model: Path, runtime: Runtime) -> list[tuple[str, dict[str, str]]]:
    """The providers of a session and their options, the one that is asked for first."""
    cuda = {
        "device_id": str(runtime.device),
        "use_tf32": str(int(runtime.tf32)),
        "arena_extend_strategy": "kSameAsRequested",  # the default, powers of two, takes up to twice as much
        "enable_cuda_graph": str(int(runtime.cuda_graph)),
    }
    if runtime.provider == "cuda":
        return [(CUDA, cuda), (CPU, {})]
    # CUDA helps TensorRT out with nodes that it does not take; the CPU may do arithmetic on shapes.
    return [(TENSORRT, tensorrt_options(model, runtime)), (CUDA, cuda), (CPU, {})]


def tensorrt_options(model: Path, runtime: Runtime) -> dict[str, str]:
    """TensorRT's options: types by what the graph holds, caches, and the range of shapes that engines are for.

    ONNX Runtime names an engine by the names of a graph's file, inputs and nodes, not by its weights (TRTGenerateId in
    its source), so each model has a folder of its own. Sparse kernels are always allowed: TensorRT looks at the weights
    by itself, and where it finds no 2:4 there, builds what it would without.
    """
    import onnx

    graph = onnx.load(model, load_external_data=False).graph
    cache = runtime.engine_cache or cache_root() / "tensorrt"
    engines = cache / folder_digest(model.parent)[:16]
    engines.mkdir(parents=True, exist_ok=True)
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in graph.input}
    typical = runtime.lengths[len(runtime.lengths) // 2]  # what kernels are chosen for, within the range
    return {
        "device_id": str(runtime.device),
        "trt_fp16_enable": "1",
        "trt_int8_enable": str(int(any(node.op_type == "QuantizeLinear" for node in graph.node))),
        "trt_sparsity_enable": "1",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(engines),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(cache),
        "trt_profile_min_shapes": _shapes(ranks, 1, 1, runtime.lengths[0]),
        "trt_profile_opt_shapes": _shapes(ranks, 1, 4, typical),
        "trt_profile_max_shapes": _shapes(ranks, runtime.most_batch, 8, runtime.lengths[-1]),
    }


def _shapes(ranks: Mapping[str, int], batch: int, choices: int, tokens: int) -> str:
    """Shapes as TensorRT's options write them; `choices` counts where inputs have such an axis."""
    written: list[str] = []
    for name, rank in ranks.items():
        sizes = (batch, tokens) if rank == 2 else (batch, choices, tokens)
        written.append(f"{name}:{'x'.join(map(str, sizes))}")
    return ",".join(written)


def memory_in_use(runtime: Runtime) -> int | None:
    """Bytes of the GPU's memory that are in use."""
    return nvidia.memory_in_use(nvidia.find_driver().devices[runtime.device])


TARGET = Target(
    name="cuda",
    runs="onnx",
    extra="cuda",
    needs=("onnxruntime",),
    reference=(("export", {"readout_slice": False}),),
    runtime=Runtime,
    reference_runtime={"provider": "cuda", "cuda_graph": False, "lengths": (), "tf32": False},
    pytorch=references,
    numerics={"provider": "cpu"},
    refuses=refuses,
    unavailable=unavailable,
    describe=describe,
    open=open_session,
    place=place,
    memory=memory_in_use,
    summary="NVIDIA GPU, ONNX Runtime's CUDA and TensorRT providers",
    library="ONNX Runtime's CUDA provider",
    calibrators=("streaming",),
    calibration_samples=(64,),
)
