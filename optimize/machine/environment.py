"""What machine this is: CPU and its features, cores, memory, GPU, library versions."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
from functools import cache
from pathlib import Path

from optimize.errors import UnavailableError
from optimize.machine.allowance import find_allowance, usable_cores
from optimize.manifest import Environment
from optimize.runtimes import nvidia

FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "avx512_bf16", "amx_bf16", "asimddp", "f16c")
LIBRARIES = (
    "onnxruntime",
    "onnx",
    "openvino",
    "nncf",
    "torch",
    "transformers",
    "datasets",
    "numpy",
)


DISTRIBUTION = "distilbert-optimize"


def detect() -> Environment:
    """Describe this machine."""
    import psutil

    allowed, total = find_allowance(), psutil.virtual_memory().total
    return Environment(
        cpu=cpu_name(),
        features=list(cpu_features()),
        cores=usable_cores(),
        cpu_quota=allowed.cpu_quota,
        memory_bytes=total,
        memory_limit_bytes=allowed.memory_bytes if (allowed.memory_bytes or total) < total else None,
        gpu=gpu_name(),
        system=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        versions={name: version(name) for name in LIBRARIES},
    )


@cache
def _cpuinfo() -> dict[str, str]:
    """The first processor's fields of /proc/cpuinfo; empty where there is none (macOS)."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    # Processors of one machine may differ (big and little cores); the first stands for all.
    block = path.read_text(encoding="utf-8").split("\n\n")[0]
    pairs = (line.split(":", 1) for line in block.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def cpu_name() -> str:
    """The processor's name, as the system gives it."""
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def cpu_features() -> tuple[str, ...]:
    """Those of `FEATURES` that this CPU has, sorted; none where the system does not list them."""
    info = _cpuinfo()
    flags = set((info.get("flags") or info.get("Features") or "").split())
    return tuple(sorted(flags & set(FEATURES)))


def why_no_bf16() -> str | None:
    """Why this CPU is no place for BF16, which libraries compute in anywhere, and slowly on most; or None."""
    return None if {"avx512_bf16", "amx_bf16"} & set(cpu_features()) else "the CPU does not compute in BF16"


def gpu_name() -> str | None:
    """The first NVIDIA GPU's name, or None."""
    devices = nvidia.find_driver().devices
    return devices[0].name if devices else None


def cache_root() -> Path:
    """The user's folder for what can be built again: `$XDG_CACHE_HOME`, or where the system keeps such things.

    Raises UnavailableError for a user without a home, as containers have them.
    """
    import platformdirs

    try:
        return platformdirs.user_cache_path(DISTRIBUTION, appauthor=False)
    except RuntimeError as error:
        raise UnavailableError(
            "cache: this user has no home folder; set HOME, or name a folder with --cache"
        ) from error


@cache
def version(distribution: str) -> str:
    """Installed version of a distribution, or of its build for GPUs, which is the same library; or 'absent'.

    Read once: it takes 2 ms, and plans of many models ask for the same ones.
    """
    for name in (distribution, f"{distribution}-gpu"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return "absent"
