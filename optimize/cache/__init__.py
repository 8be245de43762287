"""A content-addressed store of finished folders, safe against kills, races and tampering.

An entry's key is the digest of everything its content depends on; that material lies readable
beside it, so "why did it rerun" is a diff of two files. An entry is written into a folder of its
own, sealed, and renamed into place: it exists whole or not at all. Whoever loses the race uses the
winner's. Each hit is verified against its digest, and an entry that does not match is rebuilt.

`keys` says what entries are called by, `entries` how they lie in a folder, and `shared` how machines share them
through a store, of which a folder is then the copy.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from optimize.artifact import Kind
from optimize.cache.entries import (
    ARTIFACT,
    DISCARDED,
    MATERIAL,
    RECORD,
    SCRATCH,
    SCRATCH_SECONDS,
    SUM,
    UNSOUND,
    Entry,
    build_entry,
    discard,
    find_entry,
    place_entry,
    read_entry,
    stranger_in,
    sweep_leftovers,
)
from optimize.cache.keys import SHAPES_NOTHING, code_digest, key_of
from optimize.cache.shared import (
    address_in,
    address_of,
    open_place,
    place_of,
    receive,
    require_reachable,
    send,
    sends,
    shown,
)
from optimize.errors import StageError
from optimize.files.leftovers import owned_partial
from optimize.interfaces import Facts, Progress, Silence

__all__ = [
    "ARTIFACT",
    "DISCARDED",
    "MATERIAL",
    "RECORD",
    "SCRATCH_SECONDS",
    "SHAPES_NOTHING",
    "SUM",
    "UNSOUND",
    "Entry",
    "address_in",
    "address_of",
    "code_digest",
    "discard",
    "fetch",
    "open_place",
    "place_of",
    "read_entry",
    "require_reachable",
    "scratch_of",
    "shown",
    "stranger_in",
    "sweep_leftovers",
]
FULL = (errno.ENOSPC, errno.EDQUOT)


def fetch(
    root: Path,
    material: Mapping[str, Any],
    kind: Kind,
    build: Callable[[Path], Facts],
    *,
    progress: Progress | None = None,
) -> Entry:
    """The entry for `material`, built with `build(folder)` if it is missing or, which `progress` hears of, damaged.

    Where `root` is the copy of a shared cache, what is missing here is first looked for there, and what was built is
    put there.

    Raises StageError where the disk is full or the cache cannot be written to, and UnavailableError where a shared
    cache fails, of which the entry is then kept here; whatever `build` raises passes through. Either way nothing
    half-written stays.
    """
    heard = progress or Silence()
    key, text = key_of(material)
    try:
        entry = find_entry(root, key, kind)
        if entry is not None:
            with suppress(OSError):  # somebody else's cache may be read all the same
                os.utime(root / key)  # when it was last used, for who makes room
        else:
            if os.path.lexists(root / key):
                heard.say(f"cache: entry {key[:12]} is damaged; it is built again")
                discard(root / key)
            sweep_leftovers(root)
            entry = receive(root, key, kind, heard)
            if entry is None:
                with owned_partial(root, key) as folder:
                    entry = place_entry(build_entry(folder, text, kind, build, unsent=sends(root)), folder, root)
            shutil.rmtree(_scratch(root, key), ignore_errors=True)
        send(root, key, heard)
    except OSError as error:
        raise _explained(error, root) from error
    return entry


def _explained(error: OSError, root: Path) -> OSError | StageError:
    """The failure in words that name the cache, where it is the cache that failed."""
    if error.errno in FULL:
        return StageError(f"{root}: the disk is full; free some space or name another folder with --cache")
    if not os.access(f"{root}/.", os.W_OK | os.X_OK):
        why = error.strerror or type(error).__name__
        return StageError(f"{root}: cannot be written to ({why}); mend it, or name another folder with --cache")
    return error


def scratch_of(root: Path, material: Mapping[str, Any]) -> Path:
    """Where work on this material may keep what a kill must not take; nothing is there until the work puts it there."""
    return _scratch(root, key_of(material)[0])


def _scratch(root: Path, key: str) -> Path:
    return root / f"{SCRATCH}{key}"
