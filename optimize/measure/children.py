"""What holds for every process that this one starts: the parent decides when it ends, and it does not outlive it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from multiprocessing.connection import wait
from typing import NoReturn


def ignore_interrupts() -> None:
    """Leave Ctrl-C to the parent: it reaches the whole process group."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def follow_parent() -> None:
    """End at once where the parent is gone, however it ended; nothing where `multiprocessing` started no process."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        _end_with(parent.sentinel)


def _end_with(pipe: int) -> None:
    """End at once where all that could write to a pipe are gone: who is busy would see it only seconds later."""

    def end() -> None:
        wait([pipe])
        os._exit(1)  # nobody reads the code

    # It waits in the kernel, which takes no time from what is measured here.
    threading.Thread(target=end, daemon=True, name="parent").start()


def run_forked(work: Callable[[], int]) -> int:
    """Do `work` in a copy of this process, which ends with it; what it returned, or -N where signal N ended it.

    Meant for a process that has imported what the work needs and has done nothing else. A copy of it is there in
    milliseconds, and has memory of its own as soon as it writes to any.
    """
    watched, held = os.pipe()
    with warnings.catch_warnings():
        # Python 3.12 warns that a copy lacks the threads: here, one that only waits, and libraries' own, which they
        # start again.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        os.close(held)
        _be_forked(work, watched)
    os.close(watched)
    try:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    except SystemExit:  # of SIGTERM: whoever sent it may count on all being gone
        with contextlib.suppress(ProcessLookupError, ChildProcessError):  # it may have ended just before
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        raise
    finally:
        os.close(held)


def _be_forked(work: Callable[[], int], watched: int) -> NoReturn:
    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _end_with(watched)
        code = work()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)  # what is to be done at the end of the process that was copied is not the copy's to do


def exit_on_sigterm() -> None:
    """End by SystemExit on SIGTERM, so that what has to be done at the end is done."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


def exit_like(code: int) -> NoReturn:
    """End as another process did: with the code that it returned, or by the signal that ended it."""
    if code < 0:
        if code != -signal.SIGKILL:  # which cannot be set
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)
