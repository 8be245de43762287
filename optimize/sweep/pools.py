"""Where a sweep's tasks are carried out, by name: this machine's processes, or a Ray cluster."""

from __future__ import annotations

from functools import partial

from optimize.errors import RequestError, brief
from optimize.interfaces import Progress
from optimize.sweep.on_ray import check_ray, ray_cluster
from optimize.sweep.processes import processes
from optimize.sweep.sweeping import Opened

LOCAL, RAY = "local", "ray"


def opener(on: str, *, jobs: int, threads: int | None, progress: Progress) -> tuple[Opened, bool]:
    """What opens the pool that `on` names, and whether finished runs come back packed; refuses another name.

    `local` has `jobs` processes. `ray` is the cluster of RAY_ADDRESS or of this machine, ray://host:port another. Of a
    machine's cores each task has `threads`, all if that is None.
    """
    if jobs < 1:
        raise RequestError(f"--jobs: {jobs} is too few; give 1 or more")
    if on == LOCAL:
        return partial(processes, jobs, progress=progress), False
    if on == RAY or on.startswith(f"{RAY}://"):
        check_ray()
        return partial(ray_cluster, on, progress=progress, threads=threads), True
    raise RequestError(f"--on: '{brief(on)}' is no place to work; write local, ray, or ray://host:port")
