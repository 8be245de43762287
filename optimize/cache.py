"""A content-addressed store of finished folders, safe against kills, races and tampering.

An entry's key is the digest of everything its content depends on; that material lies readable
beside it, so "why did it rerun" is a diff of two files. An entry is written into a folder of its
own, sealed, and renamed into place: it exists whole or not at all. Whoever loses the race uses the
winner's. Each hit is verified against its digest, and an entry that does not match is rebuilt.

    <root>/<key>/material.json    what the key was made from; the key is its digest
    <root>/<key>/entry.json       kind, digest, facts, seconds
    <root>/<key>/entry.sha256     the digest of entry.json
    <root>/<key>/artifact/        the sealed folder: files and folders, no links
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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from optimize.artifact import Artifact, Kind, seal
from optimize.errors import StageError
from optimize.files.leftovers import owned_partial, sweep
from optimize.interfaces import Facts, Progress, Silence

SHAPES_NOTHING = (
    "__main__",
    "bench",
    "certifying",
    "choosing",
    "ci",
    "cli",
    "compared",
    "comparing",
    "config",
    "delivering",
    "finished",
    "foresight",
    "planning",
    "publishing",
    "refusals",
    "report",
    "running",
    "scores",
    "search",
    "serving",
    "tracking",
    "tuned",
    "tuning",
    "using",
)
"""Modules and folders of the package that cannot shape an artifact: they ask for it, judge it, or show it.

All other code is in every key. Coarse on purpose: an edit reruns too much rather than too little, and a new file is in
the keys without anybody having thought of it.
"""

SCRATCH_SECONDS = 14 * 24 * 3600.0
DISCARDED = ".discarded-"
ARTIFACT, MATERIAL, RECORD, SUM = "artifact", "material.json", "entry.json", "entry.sha256"
FULL = (errno.ENOSPC, errno.EDQUOT)
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


def fetch(
    root: Path,
    material: Mapping[str, Any],
    kind: Kind,
    build: Callable[[Path], Facts],
    *,
    progress: Progress | None = None,
) -> Entry:
    """The entry for `material`, built with `build(folder)` if it is missing or, which `progress` hears of, damaged.

    Raises StageError where the disk is full or the cache cannot be written to; whatever `build` raises passes through.
    Either way nothing half-written stays.
    """
    key, text = _key_of(material)
    hit = read_entry(root / key)
    if hit is not None and hit.artifact.kind == kind:
        with suppress(OSError):  # somebody else's cache may be read all the same
            os.utime(root / key)  # when it was last used, for who makes room
        return hit
    try:
        if os.path.lexists(root / key):
            (progress or Silence()).say(f"cache: entry {key[:12]} is damaged; it is built again")
            discard(root / key)
        entry = _write(root, key, text, kind, build)
    except OSError as error:
        raise _explained(error, root) from error
    shutil.rmtree(_scratch(root, key), ignore_errors=True)
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
    return _scratch(root, _key_of(material)[0])


def _scratch(root: Path, key: str) -> Path:
    return root / f".scratch-{key}"


def _key_of(material: Mapping[str, Any]) -> tuple[str, str]:
    """The key, and the text that it is the digest of."""
    full = {**material, "code": code_digest()}
    text = json.dumps(full, indent=2, sort_keys=True, default=str) + "\n"
    return _sum(text.encode()), text


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


def _write(root: Path, key: str, material: str, kind: Kind, build: Callable[[Path], Facts]) -> Entry:
    sweep_leftovers(root)
    with owned_partial(root, key) as partial:
        artifact, facts, seconds = _fill(partial, material, kind, build)
        while not _place(partial, root / key):
            theirs = read_entry(root / key)
            if theirs is not None and theirs.artifact.kind == kind:
                return theirs
            discard(root / key)
    moved = artifact.model_copy(update={"path": root / key / ARTIFACT})
    return Entry(moved, facts, seconds, cached=False, key=key)


def _fill(partial: Path, material: str, kind: Kind, build: Callable[[Path], Facts]) -> tuple[Artifact, Facts, float]:
    """Build into a folder and write beside it what the entry needs: the sealed folder, its facts, the seconds."""
    (partial / ARTIFACT).mkdir()
    start = time.perf_counter()
    with _safetensors_as_oserror():
        facts = build(partial / ARTIFACT)
    seconds = time.perf_counter() - start
    if stranger := stranger_in(partial / ARTIFACT):
        raise StageError(f"{stranger.name}: is neither a file nor a folder, in a model that was just built; report it")
    artifact = seal(partial / ARTIFACT, kind)
    record = {"kind": kind, "digest": artifact.digest, "facts": facts, "seconds": round(seconds, 3)}
    text = json.dumps(record, indent=2) + "\n"
    (partial / MATERIAL).write_text(material, encoding="utf-8")
    (partial / RECORD).write_text(text, encoding="utf-8")
    (partial / SUM).write_text(_sum(text.encode()), encoding="utf-8")
    return artifact, facts, seconds


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


def _place(partial: Path, final: Path) -> bool:
    """Rename into place; False where another process was faster."""
    try:
        partial.rename(final)
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
    for path in root.glob(".scratch-*"):
        if time.time() - _modified(path) > SCRATCH_SECONDS:
            _delete(path)


def _modified(path: Path) -> float:
    """When something last changed; now where it is gone."""
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        return time.time()


@cache
def code_digest() -> str:
    """SHA-256 over the source files that may shape cached content."""
    package = Path(__file__).parent
    total = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package)
        if name.parts[0].removesuffix(".py") not in SHAPES_NOTHING:
            total.update(name.as_posix().encode() + b"\0" + path.read_bytes())
    return total.hexdigest()
