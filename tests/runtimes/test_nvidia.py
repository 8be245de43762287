"""What NVIDIA's driver says, read from a driver of our own making: the calls are real, the GPUs are not."""

import shutil
import subprocess

import onnxruntime
import pytest

from optimize.errors import StageError, UnavailableError
from optimize.machine import environment
from optimize.runtimes import nvidia

SOURCE = """
#include <string.h>
int cuInit(unsigned flags) { return INIT; }
int cuDriverGetVersion(int *version) { *version = 13010; return 0; }
int cuDeviceGetCount(int *count) { *count = COUNT; return 0; }
int cuDeviceGet(int *device, int index) { *device = index + 40; return 0; }
int cuDeviceGetName(char *name, int length, int device) {
    strncpy(name, device == 40 ? "Imagined H100" : "Imagined T4", length); return 0; }
int cuDeviceGetUuid_v2(unsigned char *uuid, int device) {
    for (int i = 0; i < 16; i++) uuid[i] = i + device; return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = (size_t)80 << 30; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 75 ? (device == 40 ? 9 : 7) : (device == 40 ? 0 : 5); return 0; }
"""


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """Put a driver with so many GPUs in place of the machine's."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler to build a driver with")

    def make(count, init=0):
        library = tmp_path / f"libcuda{count}{init}.so"
        (tmp_path / "driver.c").write_text(SOURCE, encoding="utf-8")
        numbers = [f"-DCOUNT={count}", f"-DINIT={init}"]
        subprocess.run([compiler, "-shared", "-fPIC", *numbers, "-o", library, tmp_path / "driver.c"], check=True)
        monkeypatch.setattr(nvidia, "LIBRARY", str(library))

    return make


def test_devices_are_named_with_what_they_can_do(driver):
    driver(2)
    found = nvidia.find_driver()
    assert found.error is None
    assert found.cuda == (13, 1)
    assert [(each.name, each.capability, each.memory_bytes) for each in found.devices] == [
        ("Imagined H100", (9, 0), 80 * 2**30),
        ("Imagined T4", (7, 5), 80 * 2**30),
    ]
    assert found.devices[0].uuid == "GPU-28292a2b-2c2d-2e2f-3031-323334353637"
    assert environment.gpu_name() == "Imagined H100"


@pytest.mark.parametrize(
    ("count", "init", "words"),
    [
        (0, 0, "the driver finds no GPU"),
        (1, 100, "the driver finds no GPU"),
        (1, 803, "the driver refuses (cuInit: 803)"),
    ],
)
def test_a_driver_without_devices_says_why(count, init, words, driver):
    driver(count, init)
    assert nvidia.find_driver() == nvidia.Driver(nvidia.find_driver().cuda, error=words)
    assert environment.gpu_name() is None


def test_without_a_driver_there_is_none(monkeypatch):
    monkeypatch.setattr(nvidia, "LIBRARY", "libnowhere.so.1")
    assert nvidia.find_driver().error == "NVIDIA's driver (libnowhere.so.1) is not installed"


DEVICE = nvidia.Device("Imagined", "GPU-1", (9, 0), 2**30)


@pytest.mark.parametrize(
    ("script", "used"),
    [
        ('test "$2" = GPU-1 && echo 1234', 1234 * 2**20),
        ("echo '[N/A]'", None),
        ("echo 5; exit 9", None),
        (None, None),
    ],
)
def test_memory_in_use_is_what_the_tool_says(script, used, tmp_path, monkeypatch):
    if script is not None:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin" if script else str(tmp_path))
    assert nvidia.memory_in_use(DEVICE) == used


@pytest.mark.parametrize(
    "told",
    [
        "Failed to allocate memory for requested buffer of size 1073741824",
        "CUDA failure 2: out of memory ; GPU=0 ; hostname=here",
        "CUDA out of memory. Tried to allocate 2.00 GiB",
    ],
)
def test_a_full_gpu_is_one_line(told):
    words = r"^the GPU's memory is too small for a batch of 64x512 tokens \(.*\); use smaller batches"
    with pytest.raises(UnavailableError, match=words) as refusal, nvidia.gpu_errors("a batch of 64x512 tokens"):
        raise RuntimeError(f"{told}\nStacktrace:\n")
    assert "\n" not in str(refusal.value)


def test_whatever_else_fails_there_is_one_line_too():
    words = r"^the GPU failed at the model \(no kernel image is available\); `optimize doctor`"
    with pytest.raises(UnavailableError, match=words), nvidia.gpu_errors("the model"):
        raise RuntimeError("no kernel image is available\nat line 1")


def test_what_onnxruntime_raises_is_one_line_too(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"no model")
    words = r"^the GPU failed at the model \(.*INVALID_PROTOBUF"
    with pytest.raises(UnavailableError, match=words), nvidia.gpu_errors("the model"):
        onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("mistake", [KeyError("input_ids"), TypeError("no array"), StageError("lengths: too long")])
def test_mistakes_and_refusals_of_ours_stay_what_they_are(mistake):
    with pytest.raises(type(mistake)) as raised, nvidia.gpu_errors("the model"):
        raise mistake
    assert raised.value is mistake
