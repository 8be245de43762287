"""Intel and AMD CPUs, Intel GPUs and NPUs through OpenVINO.

OpenVINO chooses a precision by the device: an FP32 model computes in BF16 on a CPU that can (measured: 8.4 instead of
14.1 ms, 1x128, 384 wide, AVX-512 BF16). Here a model computes in FP32 unless its pipeline asks for something else,
so that "FP32" means it, and what was compiled is asked what it computes in.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

from optimize.errors import UnavailableError
from optimize.interfaces import Head, Params, Session, Target
from optimize.runtimes.openvino import MODEL_FILE, as_session, core
from optimize.runtimes.pytorch import on_cpu

if TYPE_CHECKING:
    import openvino

Precision = Literal["f32", "f16", "bf16"]
CAPABILITIES: dict[Precision, str] = {"f32": "FP32", "f16": "FP16", "bf16": "BF16"}
DEVICE = r"(CPU|GPU(\.\d+)?|NPU(\.\d+)?)"


class Runtime(Params):
    """How OpenVINO runs a model."""

    device: str = Field(
        default="CPU",
        description="`CPU`, `GPU` or `NPU`, one of several such as `GPU.1`, or `AUTO`, which leaves the choice to "
        "OpenVINO, among those named in order as in `AUTO:GPU,CPU`.",
    )
    hint: Literal["latency", "throughput"] = Field(
        default="latency",
        description="`latency` runs one request at a time on all threads. `throughput` lets several run at a time, "
        "with fewer threads each.",
    )
    precision: Precision = Field(
        default="f32",
        description="What everything that is not INT8 is computed in. OpenVINO by itself takes BF16 on CPUs that "
        "have it; here FP32 means FP32 unless this says otherwise.",
    )
    dynamic_quantization: bool = Field(
        default=True,
        description="Let CPUs round activations while the model runs, token by token, where weights alone are INT8.",
    )
    model_cache: Path | None = Field(
        default=None,
        description="Folder that compiled models are kept in, which shortens the next start. Left out, none is kept.",
    )

    @field_validator("device")
    @classmethod
    def _known(cls, value: str) -> str:
        device = value.upper()
        if not re.fullmatch(rf"{DEVICE}|AUTO(:{DEVICE}(,{DEVICE})*)?", device):
            raise ValueError("a device is CPU, GPU, NPU or AUTO, such as GPU.1 or AUTO:GPU,CPU")
        return device

    def devices(self) -> list[str]:
        """The devices that are named; none where AUTO is free to choose."""
        return [name for name in re.split("[:,]", self.device) if name != "AUTO"]

    def properties(self, threads: int) -> dict[str, object]:
        """OpenVINO's names for these settings."""
        cpu: dict[str, object] = {
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": self.precision,
            # How many values share a scale; 0 switches it off.
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": 32 if self.dynamic_quantization else 0,
        }
        found: dict[str, object] = {"PERFORMANCE_HINT": self.hint.upper()}
        if self.model_cache is not None:
            found["CACHE_DIR"] = str(self.model_cache)
        if self.device == "CPU":
            return {**found, **cpu}
        if self.device.startswith("AUTO"):
            # Which AUTO hands on to the CPU, where that is what it chooses.
            return {**found, "DEVICE_PROPERTIES": {"CPU": cpu}}
        return {**found, "INFERENCE_PRECISION_HINT": self.precision}


def unavailable(runtime: Runtime) -> str | None:
    """Why a model cannot be run here with these settings, or None."""
    if importlib.util.find_spec("openvino") is None:
        return "openvino is not installed; run: pip install 'distilbert-optimize[openvino]'"
    present = core().available_devices
    for device in runtime.devices():
        if not any(device == name or name.startswith(f"{device}.") for name in present):
            return (
                f"device {device} is not there (found: {', '.join(present) or 'none'}); name another with --device, or "
                "build with --build-only --pipeline openvino-int8 here, and run `optimize certify` on a machine with "
                "one"
            )
        able = core().get_property(device, "OPTIMIZATION_CAPABILITIES")
        if CAPABILITIES[runtime.precision] not in able:
            can = ", ".join(name for name, capability in CAPABILITIES.items() if capability in able)
            return f"device {device} does not compute in {runtime.precision}; set 'precision' to one of: {can}"
    return None


def describe(runtime: Runtime) -> dict[str, str]:
    """The devices that may run a model, by the names of the settings and of OpenVINO's properties."""
    devices = runtime.devices() or core().available_devices
    names, abilities = [], []
    for device in devices:
        names.append(core().get_property(device, "FULL_DEVICE_NAME").strip())
        abilities.append(", ".join(core().get_property(device, "OPTIMIZATION_CAPABILITIES")))
    return {
        "device": runtime.device,
        "present": ", ".join(core().available_devices),
        "full_name": "; ".join(names),
        "capabilities": "; ".join(abilities),
        "hint": runtime.hint,
        "precision": runtime.precision,
    }


def open_session(folder: Path, threads: int, head: Head, runtime: Runtime) -> Session:
    """Open an OpenVINO artifact; the session maps int64 arrays to float32 arrays named by the head.

    Raises UnavailableError where the device computes in another precision than was asked for.
    """
    compiled = core().compile_model(folder / MODEL_FILE, runtime.device, runtime.properties(threads))
    if runtime.device == "CPU":
        _require_precision(compiled, runtime)
    return as_session(compiled, head, where=folder.name)


def _require_precision(compiled: openvino.CompiledModel, runtime: Runtime) -> None:
    """A CPU without a type computes in another one and says nothing."""
    found = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    if found != runtime.precision:
        raise UnavailableError(
            f"device {runtime.device}: computes in {found} where {runtime.precision} was asked for; "
            f"set 'precision: {found}' to run it so"
        )


TARGET = Target(
    name="openvino",
    runs="openvino",
    extra="openvino",
    needs=("openvino",),
    reference=(("export", {"readout_slice": False}), ("convert_openvino", {})),
    runtime=Runtime,
    reference_runtime={"precision": "f32"},
    unavailable=unavailable,
    describe=describe,
    open=open_session,
    pytorch=on_cpu,
    summary="Intel/AMD CPU, Intel GPU or NPU, OpenVINO",
    library="OpenVINO",
    calibrators=("nncf",),
    calibration_samples=(64, 300),
)
