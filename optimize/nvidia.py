"""NVIDIA's GPUs, as the driver tells of them: which there are, what they can do, how much of their memory is in use.

The driver's own library is asked through ctypes, since it is there wherever a GPU is, needs no other package and keeps
to CUDA_VISIBLE_DEVICES; no context is made on any device. Memory in use is asked of `nvidia-smi`.
"""

from __future__ import annotations

import ctypes
import subprocess
import uuid
from dataclasses import dataclass
from typing import Any

LIBRARY = "libcuda.so.1"
NO_DEVICE = 100
MAJOR, MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
SMI_SECONDS = 10


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
    cuda = (version.value // 1000, version.value % 1000 // 10)
    devices = tuple(_device(library, index) for index in range(count.value))
    return Driver(cuda, devices, None if devices else "the driver finds no GPU")


def _device(library: Any, index: int) -> Device:
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


def memory_in_use(device: Device) -> int | None:
    """Bytes of a device's memory that all processes together have; None where `nvidia-smi` does not tell."""
    command = ["nvidia-smi", "-i", device.uuid, "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=SMI_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    told = done.stdout.strip()
    return int(told) * 2**20 if done.returncode == 0 and told.isdigit() else None
