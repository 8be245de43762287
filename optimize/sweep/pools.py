"""Where a sweep's tasks are carried out, by name: this machine's processes, or a Ray cluster."""

from __future__ import annotations

from functools import partial

from optimize.errors import RequestError
from optimize.interfaces import Progress
from optimize.machine.clusters import read_place
from optimize.sweep.on_ray import check_ray, ray_cluster
from optimize.sweep.processes import processes
from optimize.sweep.sweeping import Opened


def opener(on: str | None, *, jobs: int, threads: int | None, progress: Progress) -> tuple[Opened, bool]:
    """What opens the pool that `on` names, and whether finished runs come back packed; refuses another name.

    None are `jobs` processes here. `ray` is Ray on this machine alone, ray:auto or ray:HOST:PORT the cluster that it is
    one of, ray://HOST:PORT another. Of a machine's cores each task has `threads`, all if that is None.
    """
    if jobs < 1:
        raise RequestError(f"--jobs: {jobs} is too few; give 1 or more")
    if on is None:
        return partial(processes, jobs, progress=progress), False
    address = read_place(on, client=True)
    check_ray()
    return partial(ray_cluster, address, progress=progress, threads=threads), True
