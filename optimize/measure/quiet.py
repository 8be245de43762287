"""How much of a process's time others take, while it is timed.

A model that waits for a core, because somebody else's process has it, looks slower than it is, and whatever it is
compared with looks faster. On Linux the scheduler counts how long each thread was ready to run and did not
(`schedstat`: Documentation/scheduler/sched-stats.rst), and how long a hypervisor ran something else (`steal` in
/proc/stat). Elsewhere neither is known, and nothing is made up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

NANOSECONDS = 1e-9
TASKS = Path("/proc/self/task")


@dataclass(frozen=True)
class Taken:
    """Seconds that others have taken up to now: from each thread of this process, and from each of the cores."""

    waited: Mapping[str, float]
    stolen: float


def taken() -> Taken:
    """What others have taken from this process so far."""
    return Taken(_waited(), _stolen())


def share_lost(before: Taken, after: Taken, seconds: float) -> float:
    """The share of `seconds` between two looks that others took from the thread which they hindered most.

    The most, not the mean: threads work on one product together, and who is done waits for who is late.
    """
    if seconds <= 0:
        return 0.0
    waits = [waited - before.waited.get(thread, 0.0) for thread, waited in after.waited.items()]
    return min((max(waits, default=0.0) + after.stolen - before.stolen) / seconds, 1.0)


def _waited() -> dict[str, float]:
    waited = {}
    for path in TASKS.glob("*/schedstat"):
        try:
            _, nanoseconds, _ = path.read_text(encoding="ascii").split()
        except (OSError, ValueError):  # a thread that has just ended, or a kernel that does not count
            continue
        waited[path.parent.name] = int(nanoseconds) * NANOSECONDS
    return waited


def _stolen() -> float:
    import psutil

    return float(getattr(psutil.cpu_times(), "steal", 0.0)) / (psutil.cpu_count() or 1)
