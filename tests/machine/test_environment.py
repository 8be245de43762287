"""What machine this is, told from made-up machines."""

import importlib.metadata
import os
from pathlib import Path

import pytest

from optimize.machine import allowance, environment
from optimize.runtimes import nvidia

AMD = """processor\t: 0
vendor_id\t: AuthenticAMD
model name\t: AMD EPYC 9B45
flags\t\t: fpu sse2 avx avx2 f16c avx512f avx512_vnni avx_vnni
bugs\t\t: spectre_v1: maybe

processor\t: 1
model name\t: Another
flags\t\t: fpu amx_int8
"""
ARM = "processor\t: 0\nBogoMIPS\t: 243.75\nFeatures\t: fp asimd asimddp sve\nCPU part\t: 0xd0c\n"
SCANT = "processor\t: 0\nmodel name\t: QEMU\n"


@pytest.fixture
def machine(monkeypatch):
    """Put a text in the place of /proc/cpuinfo, or nothing."""
    read_text, exists = Path.read_text, Path.exists

    def become(cpuinfo):
        def fake_read(path, *args, **kwargs):
            return cpuinfo if path == Path("/proc/cpuinfo") else read_text(path, *args, **kwargs)

        def fake_exists(path, *args, **kwargs):
            return cpuinfo is not None if path == Path("/proc/cpuinfo") else exists(path, *args, **kwargs)

        monkeypatch.setattr(Path, "read_text", fake_read)
        monkeypatch.setattr(Path, "exists", fake_exists)
        environment._cpuinfo.cache_clear()

    yield become
    environment._cpuinfo.cache_clear()


@pytest.mark.parametrize(
    ("cpuinfo", "features"),
    [
        (AMD, ("avx2", "avx512_vnni", "avx512f", "avx_vnni", "f16c")),
        (ARM, ("asimddp",)),
        (SCANT, ()),
        ("", ()),
        (None, ()),
    ],
    ids=["AMD", "ARM", "scant", "empty", "absent"],
)
def test_features_are_those_of_the_first_processor_that_matter_here(cpuinfo, features, machine):
    machine(cpuinfo)
    assert environment.cpu_features() == features


def test_a_flag_is_a_whole_word(machine):
    machine("flags : avx2x xavx512f avx512_vnni2 amx_int8_wide\n")
    assert environment.cpu_features() == ()


def test_the_name_is_the_one_that_the_system_gives(machine, monkeypatch):
    machine(AMD)
    assert environment.cpu_name() == "AMD EPYC 9B45"
    machine(ARM)
    monkeypatch.setattr(environment.platform, "processor", lambda: "")
    monkeypatch.setattr(environment.platform, "machine", lambda: "aarch64")
    assert environment.cpu_name() == "aarch64"


def test_cores_are_those_that_this_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 8}, raising=False)
    assert allowance.usable_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert allowance.usable_cores() == 1


def driver_of(*names):
    devices = tuple(nvidia.Device(name, f"GPU-{name}", (9, 0), 2**30) for name in names)
    return lambda: nvidia.Driver((13, 0), devices)


@pytest.mark.parametrize(("names", "name"), [(("NVIDIA H200", "NVIDIA H100"), "NVIDIA H200"), ((), None)])
def test_the_gpu_is_the_first_or_none(names, name, monkeypatch):
    monkeypatch.setattr(nvidia, "find_driver", driver_of(*names))
    assert environment.gpu_name() == name


@pytest.mark.parametrize(
    ("installed", "found"),
    [
        ({"onnxruntime": "1.31.1"}, "1.31.1"),
        ({"onnxruntime-gpu": "1.31.0"}, "1.31.0"),
        ({}, "absent"),
    ],
)
def test_a_librarys_build_for_gpus_is_the_library(installed, found, monkeypatch):
    def version(name):
        if name not in installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert environment.version.__wrapped__("onnxruntime") == found


def test_versions_are_those_installed_and_absent_is_a_version():
    import numpy

    assert environment.version("numpy") == numpy.__version__
    assert environment.version("no-such-distribution") == "absent"


def test_the_users_cache_is_where_xdg_says(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert environment.cache_root() == tmp_path / "distilbert-optimize"


def test_a_description_agrees_with_its_parts_and_survives_json(machine, monkeypatch):
    machine(AMD)
    monkeypatch.setattr(nvidia, "find_driver", driver_of("NVIDIA H200"))
    here = environment.detect()
    assert (here.cpu, here.features) == ("AMD EPYC 9B45", list(environment.cpu_features()))
    assert (here.gpu, here.cores) == ("NVIDIA H200", allowance.usable_cores())
    assert here.memory_bytes > 2**27
    assert set(here.versions) == set(environment.LIBRARIES)
    assert "absent" not in here.versions.values()
    assert type(here).model_validate_json(here.model_dump_json()) == here
