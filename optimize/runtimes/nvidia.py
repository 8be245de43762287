"""NVIDIA's GPUs as the driver reports them: which there are, what they can do, how much of their memory is in use.

The driver's own library is asked through ctypes, since it is there wherever a GPU is, needs no other package and keeps
to CUDA_VISIBLE_DEVICES; no context is made on any device. Memory in use is asked of `nvidia-smi`.
"""

from __future__ import annotations

import contextlib
import ctypes
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from optimize.errors import UnavailableError, first_line

LIBRARY = "libcuda.so.1"
NO_DEVICE = 100
MAJOR, MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
SMI_SECONDS = 10
OUT_OF_MEMORY = r"out of memory|failed to allocate memory|CUDA_ERROR_OUT_OF_MEMORY|CUBLAS_STATUS_ALLOC_FAILED"


@dataclass(frozen=True)
class Device:
    """A GPU; `capability` is its compute capability, such as (9, 0)."""

    name: str
    uuid: str
    capability: tuple[int, int]
    memory_bytes: int


@dataclass(frozen=True)
class Driver:
    """The newest CUDA version that the driver runs, and its devices in CUDA's order; or why there are none."""

    cuda: tuple[int, int] = (0, 0)
    devices: tuple[Device, ...] = ()
    error: str | None = None


def find_driver() -> Driver:
    """What the driver says; where it is missing or refuses, why."""
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError:
        return Driver(error=f"NVIDIA's driver ({LIBRARY}) is not installed")
    if code := library.cuInit(0):
        return Driver(error="the driver finds no GPU" if code == NO_DEVICE else f"the driver refuses (cuInit: {code})")
    version, count = ctypes.c_int(), ctypes.c_int()
    library.cuDriverGetVersion(ctypes.byref(version))
    library.cuDeviceGetCount(ctypes.byref(count))
    cuda = (version.value // 1000, version.value % 1000 // 10)  # 13020 is 13.2
    devices = tuple(_device(library, index) for index in range(count.value))
    return Driver(cuda, devices, None if devices else "the driver finds no GPU")


def _device(library: ctypes.CDLL, index: int) -> Device:
    handle, value = ctypes.c_int(), ctypes.c_int()
    name, identity, memory = ctypes.create_string_buffer(256), (ctypes.c_ubyte * 16)(), ctypes.c_size_t()
    library.cuDeviceGet(ctypes.byref(handle), index)
    library.cuDeviceGetName(name, len(name), handle)
    library.cuDeviceGetUuid_v2(ctypes.byref(identity), handle)
    library.cuDeviceTotalMem_v2(ctypes.byref(memory), handle)
    capability = []
    for attribute in (MAJOR, MINOR):
        library.cuDeviceGetAttribute(ctypes.byref(value), attribute, handle)
        capability.append(value.value)
    return Device(
        name=name.value.decode(),
        uuid=f"GPU-{uuid.UUID(bytes=bytes(identity))}",
        capability=(capability[0], capability[1]),
        memory_bytes=memory.value,
    )


@contextlib.contextmanager
def gpu_errors(what: str) -> Iterator[None]:
    """Say in one line what a runtime says in many, when a GPU's memory is full or `what` fails there otherwise."""
    try:
        yield
    except _runtime_errors() as error:
        said = first_line(error)[:160]
        if re.search(OUT_OF_MEMORY, str(error), re.IGNORECASE):
            refusal = (
                f"the GPU's memory is too small for {what} ({said}); use smaller batches, shorter texts, or free it"
            )
        else:
            refusal = f"the GPU failed at {what} ({said}); `optimize doctor` says what is missing, if anything"
        raise UnavailableError(refusal) from error


def _runtime_errors() -> tuple[type[Exception], ...]:
    """What PyTorch and ONNX Runtime raise of their own; a mistake of ours is not among it, and stays what it is.

    PyTorch's are RuntimeErrors; ONNX Runtime's share no class but Exception, and are there only once it is imported.
    """
    module = sys.modules.get("onnxruntime.capi.onnxruntime_pybind11_state")
    raised: list[type[Exception]] = [RuntimeError]
    for kind in vars(module).values() if module else ():
        if isinstance(kind, type) and issubclass(kind, Exception):
            raised.append(kind)
    return tuple(raised)


def memory_in_use(device: Device) -> int | None:
    """Bytes of a device's memory that all processes together have; None where `nvidia-smi` does not say."""
    command = ["nvidia-smi", "-i", device.uuid, "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=SMI_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    mebibytes = done.stdout.strip()  # "[N/A]" where the driver does not count
    return int(mebibytes) * 2**20 if done.returncode == 0 and mebibytes.isdigit() else None
