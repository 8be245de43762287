"""This process's memory: its peak, and giving back what is free."""

from __future__ import annotations

import sys
from pathlib import Path


def peak_memory_bytes() -> int | None:
    """The largest resident memory this process ever had; None where the system does not say."""
    # psutil 7 knows the peak on Windows alone, and Linux's `ru_maxrss` counts what the process was before `exec` too.
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="ascii", errors="ignore").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS counts bytes here, other systems KiB.
    return peak if sys.platform == "darwin" else peak * 1024


def release_free_memory() -> None:
    """Give freed memory back to the system, where its C library can.

    Batches of ever other shapes leave glibc's heap full of holes, since it stops using mmap for blocks of up to
    32 MB once such have been freed: 60 batches of rising length left PyTorch with 1.5 GB, of which 0.9 were free.
    """
    import psutil

    # psutil leaves the function out where the C library has nothing to call, such as musl.
    if hasattr(psutil, "heap_trim"):
        psutil.heap_trim()
