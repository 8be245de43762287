"""What control groups leave a process of the machine: a share of its cores, and memory.

A container sees the whole machine. How much of it a process gets is written in the folder of its group and in those of
all groups around it, of which the tightest counts. Version 1 has a tree of folders for each controller, version 2 one.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

NUMBER = re.compile(r"-?\d{1,20}", re.ASCII)
UNLIMITED_BYTES = 2**60
"""Version 1 has no word for memory without a limit, only a number that no machine reaches."""


@dataclass(frozen=True)
class Allowance:
    """Cores' worth of time, such as 1.5, and bytes of memory; None where nothing limits them."""

    cpu_quota: float | None
    memory_bytes: int | None


def find_allowance(root: Path = Path("/")) -> Allowance:
    """What this process is allowed; `root` holds its `proc/self` and the file systems that are mounted there."""
    quotas = [quota for folder in _groups(root, "cpu") if (quota := _quota(folder)) is not None]
    memory = [limit for folder in _groups(root, "memory") if (limit := _memory(folder)) is not None]
    return Allowance(min(quotas, default=None), min(memory, default=None))


def usable_cores(root: Path = Path("/")) -> int:
    """Cores that this process may use, or the time of so many; see `find_allowance` for `root`."""
    # Under taskset, or in a container with a CPU set, these are fewer than the machine has.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else host_cores()
    quota = find_allowance(root).cpu_quota
    return cores if quota is None else min(cores, max(1, math.ceil(quota)))


def usable_memory(root: Path = Path("/")) -> int:
    """Bytes of memory that this process may use; see `find_allowance` for `root`."""
    import psutil

    total = int(psutil.virtual_memory().total)
    return min(total, find_allowance(root).memory_bytes or total)


def host_cores() -> int:
    """Cores of the machine, whoever may use them."""
    return os.cpu_count() or 1


def keep_to_quota() -> None:
    """Have native libraries that are imported from now on start no more threads than this process may use cores.

    OpenMP and Rayon count the machine's, and what is beyond a quota stands still most of the time. What the user set
    stays.
    """
    if find_allowance().cpu_quota is not None:
        for name in ("OMP_NUM_THREADS", "RAYON_NUM_THREADS"):
            os.environ.setdefault(name, str(usable_cores()))


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of the group and of all around it that this process can see, in every tree with the controller."""
    own = dict(_own_groups(root, controller))
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        fields, (kind, *options) = before.split(" "), after.split(" ")
        if kind not in own or len(fields) < 5 or (kind == "cgroup" and controller not in ",".join(options).split(",")):
            continue
        shown, point = PurePosixPath(fields[3]), root / fields[4].lstrip("/")
        group = own[kind]
        # A mount shows a part of the tree. A group outside of it cannot be seen; what is shown is the nearest to it.
        below = group.relative_to(shown) if group.is_relative_to(shown) else PurePosixPath()
        if ".." in below.parts:
            below = PurePosixPath()
        for part in (below, *below.parents):
            yield point / part


def _own_groups(root: Path, controller: str) -> Iterator[tuple[str, PurePosixPath]]:
    """The group of this process, by the file system of its tree: cgroup2, or version 1's with the controller."""
    for line in _lines(root / "proc/self/cgroup"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            yield "cgroup2", PurePosixPath(path)
        elif controller in controllers.split(","):
            yield "cgroup", PurePosixPath(path)


def _quota(folder: Path) -> float | None:
    numbers = _numbers(folder / "cpu.max")
    if not numbers:
        numbers = [*_numbers(folder / "cpu.cfs_quota_us")[:1], *_numbers(folder / "cpu.cfs_period_us")[:1]]
    quota, period = (*numbers, None, None)[:2]
    return quota / period if quota and period and quota > 0 and period > 0 else None


def _memory(folder: Path) -> int | None:
    (limit,) = (_numbers(folder / "memory.max") or _numbers(folder / "memory.limit_in_bytes"))[:1] or [None]
    return limit if limit is not None and 0 < limit < UNLIMITED_BYTES else None


def _numbers(path: Path) -> list[int | None]:
    """The numbers of a file; None for a word, such as "max"."""
    words = " ".join(_lines(path)).split()
    return [int(word) if NUMBER.fullmatch(word) else None for word in words]


def _lines(path: Path) -> list[str]:
    """Nothing where there is no such file, as in the folder of the outermost group, or on another system."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
