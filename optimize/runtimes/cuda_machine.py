"""What keeps this machine from running models on a GPU, found before anything is opened.

ONNX Runtime finds out only when a session is opened: a provider whose driver, device or libraries are missing warns and
gives way to the CPU. Everything that it needs is therefore looked at here, from the driver to pip's packages.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import importlib.util
import io
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from optimize.runtimes import nvidia

CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
PACKAGES = ("onnxruntime", "onnxruntime-gpu")
LEAST_CAPABILITY = (7, 5)  # what CUDA 13 compiles for: Turing (T4) and newer
CUFFT = {12: "libcufft.so.11", 13: "libcufft.so.12"}  # by major version of CUDA
CUDNN, NVINFER = "libcudnn.so.9", "libnvinfer.so.10"  # what onnxruntime-gpu 1.31.1 is linked with
ELSEWHERE = (
    "build it here with --build-only (BUILD_ONLY=1) and certify it with `optimize certify RUN` on a machine with a "
    "GPU, or run all of it there"
)
INSTALL = (
    "`make optimize TARGET=cuda` sets up an environment with it; by hand, in one without onnxruntime: "
    "pip install 'distilbert-optimize[cuda]'"
)


def why_unfit(device: int, provider: str) -> str | None:
    """Why an execution provider cannot run models on a device here, or None."""
    driver = nvidia.find_driver()
    if driver.error:
        return f"no CUDA device: {driver.error}; {ELSEWHERE}"
    if device >= len(driver.devices):
        names = ", ".join(f"{index}: {each.name}" for index, each in enumerate(driver.devices))
        return f"device {device} is not there (found {names}); name another with --device"
    return _unfit_packages(provider) or _unfit_driver(driver, device) or _missing_libraries(provider)


def _unfit_packages(provider: str) -> str | None:
    """What is wrong with the installed onnxruntime."""
    present = list(filter(_installed, PACKAGES))
    if len(present) > 1:
        return (
            f"{' and '.join(present)} are both installed and overwrite each other's files; uninstall both, then "
            f"install onnxruntime-gpu alone; {INSTALL}"
        )
    if importlib.util.find_spec("onnxruntime") is None:
        return f"onnxruntime-gpu is not installed; {INSTALL}"
    import onnxruntime

    if provider not in onnxruntime.get_available_providers():
        return f"the installed {' or '.join(present) or 'onnxruntime'} has no {provider}; {INSTALL}"
    return None


def _installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _unfit_driver(driver: nvidia.Driver, device: int) -> str | None:
    """Where driver or GPU are too old for the CUDA version that onnxruntime was built with."""
    import onnxruntime

    built, major = onnxruntime.cuda_version, _built_major()
    if driver.cuda[0] < major:
        return (
            f"the driver runs CUDA {dotted(driver.cuda)} and onnxruntime-gpu {onnxruntime.__version__} needs CUDA "
            f"{built}; update the driver, or install an onnxruntime-gpu that was built with CUDA {driver.cuda[0]}"
        )
    found = driver.devices[device]
    if found.capability < LEAST_CAPABILITY and major >= 13:
        return (
            f"device {device} ({found.name}) has compute capability {dotted(found.capability)} and CUDA {built} needs "
            f"{dotted(LEAST_CAPABILITY)}; use a newer GPU, or an onnxruntime-gpu that was built with CUDA 12"
        )
    return None


def _built_major() -> int:
    import onnxruntime

    return int(str(onnxruntime.cuda_version).split(".", maxsplit=1)[0])


def dotted(version: tuple[int, int]) -> str:
    """A version in words."""
    return f"{version[0]}.{version[1]}"


def cannot_compile() -> str | None:
    """Why `torch.compile` cannot be measured here, or None."""
    if importlib.util.find_spec("triton") is None:
        return "not measured: triton is not installed; install PyTorch for CUDA"
    if not any(shutil.which(name) for name in ("cc", "gcc", "clang")):
        return "not measured: triton needs a C compiler; install gcc"
    return None


def _missing_libraries(provider: str) -> str | None:
    """Which library cannot be loaded, and what to install; None where all can be. Those that can be, are."""
    major = _built_major()
    load_libraries(provider)
    # In this order: a library that lacks one before it cannot be loaded either, and the cause is to be named.
    needed = [f"libcudart.so.{major}", f"libcublasLt.so.{major}", f"libcublas.so.{major}", "libcurand.so.10"]
    if major in CUFFT:
        needed.append(CUFFT[major])
    needed.append(CUDNN)
    for name in needed:
        if not _loads(name):
            others = sorted({path.name for path in found_libraries(name.split(".so")[0])} - {name})
            seen = f" (found {', '.join(others)}, of another version)" if others else ""
            return f"{name} cannot be loaded{seen}; run: pip install 'distilbert-optimize[cuda]'"
    if provider == TENSORRT and not _loads(NVINFER):
        return f"{NVINFER} cannot be loaded; run: pip install 'distilbert-optimize[tensorrt]'"
    return None


def load_libraries(provider: str) -> None:
    """Load what pip's packages hold, so that the providers find it; what is missing is passed over in silence."""
    import onnxruntime

    # It prints what it does not find; `_missing_libraries` says what of that matters, in one line.
    with contextlib.redirect_stdout(io.StringIO()):
        onnxruntime.preload_dlls(directory="")
    if provider == TENSORRT:
        major = NVINFER.rsplit(".", maxsplit=1)[-1]
        for stem in ("libnvinfer", "libnvinfer_plugin", "libnvonnxparser"):
            for path in found_libraries(stem):
                if path.name == f"{stem}.so.{major}":
                    _loads(str(path))


def found_libraries(stem: str) -> Iterator[Path]:
    """The files in pip's packages that hold a library, of any version."""
    for package in ("nvidia", "tensorrt_libs"):
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            for path in Path(folder).rglob(f"{stem}.so.*"):
                version = path.name.removeprefix(f"{stem}.so.")
                if re.fullmatch(r"[\d.]+", version):
                    yield path


def _loads(name: str) -> bool:
    try:
        ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
    except OSError:
        return False
    return True
