"""Folders that are being filled, and how to tell those of the living from what killed processes left.

Whoever fills a folder holds a lock on a file beside it (`flock`). The kernel lets go of it when the process ends,
however it ends, and knows all processes that share the disk on this machine: containers too, whatever their host names
and process ids are. So a lock that can be had means that its owner is dead.

A lock means less where its owner ran on another kernel, since some network disks keep locks to one machine, and nothing
where a disk has no locks. Then, and where an owner was killed before it had its lock, what nobody touched for a week
goes.

    <root>/.partial-optimize-<random>/owner    locked while its owner lives; holds the id of the kernel it runs on
    <root>/.partial-optimize-<random>/<name>/  being filled
"""

from __future__ import annotations

import fcntl
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = ".partial-optimize-"
OWNER = "owner"
ABANDONED_SECONDS = 7 * 24 * 3600.0
KERNEL = Path("/proc/sys/kernel/random/boot_id")


@contextmanager
def owned_partial(root: Path, name: str) -> Iterator[Path]:
    """An empty folder called `name` somewhere below `root`, to be filled and renamed into place.

    What is still there at the end goes. Raises OSError where `root` cannot be written to.
    """
    root.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix=PREFIX, dir=root))
    try:
        with _owned(place):
            (place / name).mkdir()
            yield place / name
    finally:
        shutil.rmtree(place, ignore_errors=True)


def sweep(root: Path) -> None:
    """Remove what dead processes were filling below `root`; what belongs to the living stays."""
    for place in root.glob(f"{PREFIX}*"):
        if _is_abandoned(place):
            shutil.rmtree(place, ignore_errors=True)


@contextmanager
def _owned(place: Path) -> Iterator[None]:
    """Hold the lock of a new folder. The file gets its name once it is locked, so that no sweep is faster."""
    unnamed = place / f"{OWNER}.new"
    with unnamed.open("x", encoding="utf-8") as stream:
        if lock(stream.fileno()):
            stream.write(_kernel())
            stream.flush()
        unnamed.rename(place / OWNER)
        yield


def lock(file: int) -> bool:
    """Lock an open file; False where the disk has no locks. Raises BlockingIOError where another process holds it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


def _is_abandoned(place: Path) -> bool:
    """Whether the owner is surely dead."""
    owner = place / OWNER
    if not owner.is_file():
        return _is_old(place)
    try:
        # Network disks lock only what is open for writing.
        with owner.open("r+", encoding="utf-8") as stream:
            kernel = stream.read()
            locked = lock(stream.fileno())
    except BlockingIOError:
        return False
    except (OSError, ValueError):
        return _is_old(place)
    return (locked and kernel != "" and kernel == _kernel()) or _is_old(place)


def _kernel() -> str:
    """What tells this start of this machine's kernel from all others; nothing where that cannot be told."""
    try:
        return KERNEL.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _is_old(place: Path) -> bool:
    """Whether nothing in a folder was touched for a week; not where it goes while it is looked at."""
    try:
        newest = max(path.lstat().st_mtime for path in (place, *place.rglob("*")))
    except OSError:
        return False
    return time.time() - newest > ABANDONED_SECONDS
