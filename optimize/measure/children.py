"""What holds for every process that this one starts: the parent decides when it ends, and it does not outlive it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import wait


def follow_parent() -> None:
    """Leave Ctrl-C to the parent, which reaches the whole process group; end at once where the parent is gone.

    However the parent ended: a process that is busy would look for it only once it is done, seconds later.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # It waits in the kernel, which takes no time from what is measured here.
    threading.Thread(target=_end_with_parent, daemon=True, name="parent").start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)  # nobody reads the code
