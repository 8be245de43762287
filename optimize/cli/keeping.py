"""The cache's entries listed, removed and verified; what a living process is writing is never touched.

How an entry lies on disk is told in `optimize.cache.entries`. This is not there, since all of that is in the keys.
"""

from __future__ import annotations

import json
import os
import re
import stat
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from optimize import cache
from optimize.errors import RequestError
from optimize.interfaces import Progress

UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
DAY = 24 * 3600.0
KEY = "[0-9a-f]{64}"
"""What an entry's name is: a SHA-256 in hex."""
DAMAGED = "damaged"
"""What stands for the stage of an entry that does not say it."""
UNREADABLE = (*cache.UNSOUND, AttributeError)
"""What reading an entry's material fails with that somebody changed."""


@dataclass(frozen=True)
class Kept:
    """An entry: what it is of, its size in bytes, and since when it is of its age, in seconds since 1970.

    That is when it was last used in a folder, and when it was written in a store. `folder` is its place on this
    machine, where nothing has to be.
    """

    key: str
    stage: str
    head: str
    size_bytes: int
    since: float
    folder: Path

    @property
    def age_seconds(self) -> float:
        """Seconds since it was last used, or written."""
        return max(0.0, time.time() - self.since)  # clocks of a shared disk's machines differ


def list_entries(root: Path) -> list[Kept]:
    """All entries, the last used first; a file or a link that somebody put in an entry's place is one too."""
    found = []
    for folder in root.glob("[0-9a-f]*"):
        if re.fullmatch(KEY, folder.name) and (entry := _read(folder)) is not None:
            found.append(entry)
    return sorted(found, key=lambda entry: -entry.since)


def _read(folder: Path) -> Kept | None:
    """What a folder says of itself; None where another process has just removed it."""
    size, used = 0, 0.0
    try:
        used = folder.lstat().st_mtime  # set anew at each use; many disks do not keep when a file was read
        size = sum(map(_size, folder.rglob("*")))
        if not cache.stranger_in(folder):
            stage, head = names_in((folder / cache.MATERIAL).read_bytes())
            return Kept(folder.name, stage, head, size, used, folder)
    except UNREADABLE:
        if not os.path.lexists(folder):
            return None
    return Kept(folder.name, DAMAGED, "", size, used, folder)


def names_in(material: bytes) -> tuple[str, str]:
    """The stage and the head of an entry with this material; raises UNREADABLE for what is none."""
    found = json.loads(material)
    stage = found.get("stage") or f"checkpoint ({found['source']})"
    return str(stage), str(found["head"])


def _size(path: Path) -> int:
    """Bytes of a file; folders and links have none to count."""
    facts = path.lstat()
    return facts.st_size if stat.S_ISREG(facts.st_mode) else 0


def choose_old(entries: Sequence[Kept], *, keep_bytes: int | None, older_than_days: float | None) -> list[Kept]:
    """The entries to remove: those not used for so long, and of the rest the longest unused, until it fits."""
    old, left = [], keep_bytes
    for each in sorted(entries, key=lambda each: each.age_seconds):
        too_old = older_than_days is not None and each.age_seconds >= older_than_days * DAY
        too_much = left is not None and each.size_bytes > left
        if too_old or too_much:
            old.append(each)
            left = 0 if too_much else left  # what was used longer ago goes too, however small
        elif left is not None:
            left -= each.size_bytes
    return old


def collect(root: Path, old: Sequence[Kept]) -> None:
    """Remove entries, and what killed processes left behind."""
    for each in old:
        cache.discard(each.folder)
    cache.sweep_leftovers(root)


def verify(entries: Sequence[Kept], progress: Progress) -> list[Kept]:
    """The entries that are not what was sealed; they are removed, to be built again when they are wanted."""
    damaged = []
    for done, each in enumerate(entries, 1):
        # What another process removed meanwhile is not damaged.
        if cache.read_entry(each.folder) is None and os.path.lexists(each.folder):
            damaged.append(each)
            cache.discard(each.folder)
        progress.step("verify", done, len(entries))
    return damaged


def read_size(text: str, flag: str) -> int:
    """`500MB` or `2 GB` in bytes."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?B)?\s*", text, re.IGNORECASE)
    if match is None:
        raise RequestError(f"{flag}: '{text}' is not a size; write for instance 2GB or 500MB")
    return int(float(match[1]) * UNITS[(match[2] or "B").upper()])
