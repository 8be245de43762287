"""Control groups of both versions, nested, as containers see them."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from optimize.machine import allowance, environment
from optimize.machine.allowance import Allowance, find_allowance, keep_to_quota

V2 = "30 24 0:26 {shown} /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "33 25 0:29 {shown} /sys/fs/cgroup/{name} rw,nosuid shared:10 - cgroup cgroup rw,{controllers}\n"
OTHER = "22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\nnonsense\n\n1 2 3 - \n"
GIB = 2**30


def v2(group: str = "/", shown: str = "/") -> dict[str, str]:
    return {"proc/self/cgroup": f"0::{group}\n", "proc/self/mountinfo": OTHER + V2.format(shown=shown)}


def v1(group: str = "/", shown: str = "/") -> dict[str, str]:
    trees = (("cpu,cpuacct", "cpu,cpuacct"), ("memory", "memory"), ("cpuset", "cpuset"))
    mounts = [V1.format(shown=shown, name=name, controllers=controllers) for name, controllers in trees]
    groups = f"9:cpuset:/elsewhere\n4:cpuacct,cpu:{group}\n3:memory:{group}\n1:name=systemd:{group}\nnonsense\n"
    return {"proc/self/cgroup": groups, "proc/self/mountinfo": OTHER + "".join(mounts)}


def at(folder: str, **files: str) -> dict[str, str]:
    return {f"sys/fs/cgroup{folder}/{name.replace('__', '.')}": text for name, text in files.items()}


def v1_cpu(folder: str, quota: str, period: str = "100000") -> dict[str, str]:
    return at(f"/cpu,cpuacct{folder}", cpu__cfs_quota_us=quota, cpu__cfs_period_us=period)


def v1_memory(folder: str, limit: str) -> dict[str, str]:
    return at(f"/memory{folder}", memory__limit_in_bytes=limit)


DEEP = "/a/b/c"
MACHINES: dict[str, tuple[dict[str, str], float | None, int | None]] = {
    "no control groups": ({}, None, None),
    "no mounts": ({"proc/self/cgroup": "0::/\n"}, None, None),
    "2: the machine itself": (v2(), None, None),
    "2: no limit": (v2() | at("", cpu__max="max 100000\n", memory__max="max\n"), None, None),
    "2: a container": (v2() | at("", cpu__max="150000 100000\n", memory__max=f"{GIB}\n"), 1.5, GIB),
    "2: half a core": (v2() | at("", cpu__max="50000 100000\n"), 0.5, None),
    "2: another period": (v2() | at("", cpu__max="400000 200000\n"), 2.0, None),
    "2: no period": (v2() | at("", cpu__max="400000\n"), None, None),
    "2: a period of nothing": (v2() | at("", cpu__max="400000 0\n"), None, None),
    "2: an empty file": (v2() | at("", cpu__max="", memory__max=""), None, None),
    "2: nonsense": (v2() | at("", cpu__max="lots of it", memory__max="\x00\xff"), None, None),
    "2: half a number": (v2() | at("", cpu__max="--5 100000", memory__max="9" * 5000), None, None),
    "2: the innermost": (
        v2(DEEP) | at(DEEP, cpu__max="100000 100000", memory__max="5") | at("/a", cpu__max="800000 100000"),
        1.0,
        5,
    ),
    "2: the one around it": (
        v2(DEEP) | at(DEEP, cpu__max="max 100000") | at("/a/b", cpu__max="300000 100000"),
        3.0,
        None,
    ),
    "2: the outermost": (v2(DEEP) | at(DEEP, memory__max="9") | at("/a", memory__max="7"), None, 7),
    "2: another one's": (v2(DEEP) | at("/a/other", cpu__max="100000 100000", memory__max="5"), None, None),
    "2: a part is shown": (v2("/docker/id", "/docker/id") | at("", cpu__max="200000 100000"), 2.0, None),
    "2: below what is shown": (v2("/docker/id/x", "/docker/id") | at("/x", cpu__max="200000 100000"), 2.0, None),
    "2: outside of what is shown": (v2("/other", "/docker/id") | at("", cpu__max="200000 100000"), 2.0, None),
    "2: above what is shown": (v2("/../../x") | at("", cpu__max="200000 100000"), 2.0, None),
    "1: the machine itself": (v1(), None, None),
    "1: no limit": (v1() | v1_cpu("", "-1") | v1_memory("", "9223372036854771712"), None, None),
    "1: a container": (v1() | v1_cpu("", "250000") | v1_memory("", str(GIB)), 2.5, GIB),
    "1: another period": (v1() | v1_cpu("", "20000", "40000"), 0.5, None),
    "1: the innermost": (v1(DEEP) | v1_cpu(DEEP, "100000") | v1_cpu("/a", "900000") | v1_memory(DEEP, "3"), 1.0, 3),
    "1: the one around it": (v1(DEEP) | v1_cpu(DEEP, "-1") | v1_cpu("/a/b", "300000") | v1_memory("/a", "4"), 3.0, 4),
    "1: a part is shown": (v1("/docker/id", "/docker/id") | v1_cpu("", "200000") | v1_memory("", "4"), 2.0, 4),
    "1: the group of another controller": (v1() | at("/cpuset/elsewhere", cpu__cfs_quota_us="100000"), None, None),
    "both": (
        {
            "proc/self/cgroup": "4:cpu,cpuacct:/x\n0::/y\n",
            "proc/self/mountinfo": V1.format(shown="/", name="cpu,cpuacct", controllers="cpu,cpuacct")
            + "40 25 0:31 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
        }
        | v1_cpu("/x", "700000")
        | at("/unified/y", cpu__max="600000 100000", memory__max="8"),
        6.0,
        8,
    ),
}


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="latin-1")


@pytest.mark.parametrize(("files", "quota", "memory"), MACHINES.values(), ids=MACHINES)
def test_the_tightest_of_all_groups_around_a_process_counts(tmp_path: Path, files, quota, memory) -> None:
    write(tmp_path, files)

    assert find_allowance(tmp_path) == Allowance(quota, memory)


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("max", 8),
        ("10000", 1),
        ("50000", 1),
        ("100000", 1),
        ("100001", 2),
        ("150000", 2),
        ("800000", 8),
        ("6400000", 8),
    ],
)
def test_a_share_of_a_core_is_a_whole_one(tmp_path: Path, monkeypatch, quota: str, cores: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    write(tmp_path, v2() | at("", cpu__max=f"{quota} 100000"))

    assert allowance.usable_cores(tmp_path) == cores


@pytest.mark.parametrize(("limit", "kept"), [(GIB, GIB), (2**59, None), (None, None)])
def test_a_limit_above_the_machine_s_memory_is_none(monkeypatch, limit: int | None, kept: int | None) -> None:
    for module in (allowance, environment):
        monkeypatch.setattr(module, "find_allowance", lambda *_: Allowance(1.5, limit))

    here = environment.detect()

    assert (here.cpu_quota, here.memory_limit_bytes) == (1.5, kept)
    assert here.cores <= 2


@pytest.mark.parametrize(("quota", "asked", "threads"), [(1.5, None, "2"), (1.5, "7", "7"), (None, None, None)])
def test_native_libraries_keep_to_the_quota_unless_the_user_says_otherwise(monkeypatch, quota, asked, threads) -> None:
    monkeypatch.setattr(os, "environ", {} if asked is None else {"OMP_NUM_THREADS": asked})
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(allowance, "find_allowance", lambda *_: Allowance(quota, None))

    keep_to_quota()

    assert os.environ.get("OMP_NUM_THREADS") == threads


@pytest.mark.parametrize(("limit", "usable"), [(5, 5), (2**62, 100), (None, 100)])
def test_no_more_memory_is_usable_than_the_machine_has(monkeypatch, limit: int | None, usable: int) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=100))
    monkeypatch.setattr(allowance, "find_allowance", lambda *_: Allowance(None, limit))

    assert allowance.usable_memory() == usable
