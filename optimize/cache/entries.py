"""Entries as they lie in a folder: written whole or not at all, read only as they were sealed, and removed.

What a cache's folder holds:

    <root>/<key>/material.json    what the key was made from; the key is its digest
    <root>/<key>/entry.json       kind, digest, facts, seconds
    <root>/<key>/entry.sha256     the digest of entry.json
    <root>/<key>/artifact/        the sealed folder: files and folders, no links
    <root>/<key>/unsent           in the copy of a shared cache: the store is yet to get the entry
    <root>/.partial-optimize-…/   being written, see `optimize.files.leftovers`
    <root>/.discarded-…/          an entry on its way out
    <root>/.scratch-<key>/        what long work keeps to go on from after a kill; removed with the work's end,
                                  and where nobody came back to it for two weeks
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from optimize.artifact import Artifact, Kind, seal
from optimize.errors import StageError
from optimize.files.leftovers import sweep
from optimize.interfaces import Facts

SCRATCH_SECONDS = 14 * 24 * 3600.0
DISCARDED, SCRATCH = ".discarded-", ".scratch-"
ARTIFACT, MATERIAL, RECORD, SUM, UNSENT = "artifact", "material.json", "entry.json", "entry.sha256", "unsent"
TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)
"""What the system says of a rename where something is there already: a folder with content, or no folder at all."""
UNSOUND = (OSError, ValueError, LookupError, TypeError, RecursionError)
"""What reading an entry fails with that somebody changed."""


@dataclass(frozen=True)
class Entry:
    """A finished folder: its artifact, what was noted about it, and whether it was there already."""

    artifact: Artifact
    facts: Facts
    seconds: float
    cached: bool
    key: str


def find_entry(root: Path, key: str, kind: Kind) -> Entry | None:
    """The entry of a key, if it is there as it was sealed, and of this kind."""
    found = read_entry(root / key)
    return found if found is not None and found.artifact.kind == kind else None


def read_entry(folder: Path) -> Entry | None:
    """The entry in a folder that is named by its key; None where there is none, or it is not what was sealed."""
    try:
        if stranger_in(folder):
            return None
        text = (folder / RECORD).read_bytes()
        if _sum((folder / MATERIAL).read_bytes()) != folder.name or _sum(text) != (folder / SUM).read_text("utf-8"):
            return None
        record = json.loads(text)
        artifact = seal(folder / ARTIFACT, record["kind"])
        if artifact.digest != record["digest"]:
            return None
        return Entry(artifact, record["facts"], record["seconds"], cached=True, key=folder.name)
    except UNSOUND:
        return None


def stranger_in(folder: Path) -> Path | None:
    """The first thing, `folder` itself included, that is neither a file nor a folder, or None.

    A link leads elsewhere, a pipe keeps its reader waiting; nothing of ours has them.
    """
    for path in (folder, *folder.rglob("*")):
        mode = path.lstat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            return path
    return None


def _sum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def build_entry(folder: Path, material: str, kind: Kind, build: Callable[[Path], Facts], *, unsent: bool) -> Entry:
    """Build into a folder and write beside it what the entry needs: the material, the record, its digest."""
    (folder / ARTIFACT).mkdir()
    start = time.perf_counter()
    with _safetensors_as_oserror():
        facts = build(folder / ARTIFACT)
    seconds = time.perf_counter() - start
    if stranger := stranger_in(folder / ARTIFACT):
        raise StageError(f"{stranger.name}: is neither a file nor a folder, in a model that was just built; report it")
    artifact = seal(folder / ARTIFACT, kind)
    record = {"kind": kind, "digest": artifact.digest, "facts": facts, "seconds": round(seconds, 3)}
    text = json.dumps(record, indent=2) + "\n"
    (folder / MATERIAL).write_text(material, encoding="utf-8")
    (folder / RECORD).write_text(text, encoding="utf-8")
    (folder / SUM).write_text(_sum(text.encode()), encoding="utf-8")
    if unsent:
        (folder / UNSENT).touch()
    return Entry(artifact, facts, seconds, cached=False, key=folder.name)


@contextmanager
def _safetensors_as_oserror() -> Iterator[None]:
    """Make an OSError of what safetensors 0.8 raises where it cannot write, on a full disk for instance."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        found = re.search(r"\(os error (\d+)\)", str(error))
        if found is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1]))) from error


def place_entry(made: Entry, folder: Path, root: Path) -> Entry:
    """Rename the folder of a new entry into place; whoever loses the race uses the winner's."""
    final = root / made.key
    while not _renamed(folder, final):
        theirs = find_entry(root, made.key, made.artifact.kind)
        if theirs is not None:
            return theirs
        discard(final)
    return replace(made, artifact=made.artifact.model_copy(update={"path": final / ARTIFACT}))


def _renamed(folder: Path, final: Path) -> bool:
    """Rename a folder; False where another process was faster."""
    try:
        folder.rename(final)
    except OSError as error:
        if error.errno in TAKEN:
            return False
        raise
    return True


def discard(folder: Path) -> None:
    """Move an entry aside in one step, then delete it."""
    # Beside it: whoever may rename somebody else's folder may not always move it into another one.
    aside = folder.parent / f"{DISCARDED}{secrets.token_hex(8)}"
    try:
        folder.rename(aside)
    except FileNotFoundError:
        return
    _delete(aside)


def _delete(path: Path) -> None:
    """Delete a folder, or whatever somebody put in its place, as far as that can be done."""
    with suppress(OSError, RecursionError):
        if path.is_symlink() or not path.is_dir():
            path.unlink()
        else:
            shutil.rmtree(path, ignore_errors=True)


def sweep_leftovers(root: Path) -> None:
    """Remove what killed processes left behind."""
    sweep(root)
    for path in root.glob(f"{DISCARDED}*"):
        _delete(path)
    for path in root.glob(f"{SCRATCH}*"):
        if time.time() - _modified(path) > SCRATCH_SECONDS:
            _delete(path)


def _modified(path: Path) -> float:
    """When something last changed; now where it is gone."""
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        return time.time()
