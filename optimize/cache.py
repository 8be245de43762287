"""A content-addressed store of finished folders, safe against kills, races and tampering.

An entry's key is the digest of everything its content depends on; that material lies readable
beside it, so "why did it rerun" is a diff of two files. An entry is written into a folder of its
own, sealed, and renamed into place: it exists whole or not at all. Whoever loses the race uses the
winner's. Each hit is verified against its digest, and an entry that does not match is rebuilt.

    <root>/<key>/material.json    what the key was made from
    <root>/<key>/entry.json       kind, digest, size, facts, seconds
    <root>/<key>/artifact/        the sealed folder
    <root>/.partial-<host>-<pid>-<n>/  being written; removed once its process is gone
    <root>/.scratch-<key>/        what long work keeps to go on from after a kill; removed with the work's end,
                                  and where nobody came back to it for two weeks
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from optimize.artifact import Artifact, Kind, seal
from optimize.errors import StageError
from optimize.interfaces import Facts

SHAPES_NOTHING = (
    "__main__",
    "bench",
    "certifying",
    "choosing",
    "cli",
    "config",
    "planning",
    "publishing",
    "report",
    "running",
)
"""Modules and folders of the package that cannot shape an artifact: they ask for it, judge it, or show it.

All other code is in every key. Coarse on purpose: an edit reruns too much rather than too little, and a new file is in
the keys without anybody having thought of it.
"""

SCRATCH_SECONDS = 14 * 24 * 3600.0


@dataclass(frozen=True)
class Entry:
    """A finished folder: its artifact, what was noted about it, and whether it was there already."""

    artifact: Artifact
    facts: Facts
    seconds: float
    cached: bool
    key: str


def fetch(root: Path, material: Mapping[str, Any], kind: Kind, build: Callable[[Path], Facts]) -> Entry:
    """The entry for `material`, built with `build(folder)` if it is missing or damaged.

    Raises StageError where the disk is full; whatever `build` raises passes through. Either way
    nothing half-written stays.
    """
    key, text = _key_of(material)
    hit = _read(root / key, kind, key)
    if hit is not None:
        return hit
    try:
        entry = _write(root, key, text, kind, build)
        shutil.rmtree(_scratch(root, key), ignore_errors=True)
        return entry
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StageError(
                f"{root}: the disk is full; free some space or name another folder with --cache"
            ) from error
        raise


def scratch_of(root: Path, material: Mapping[str, Any]) -> Path:
    """Where work on this material may keep what a kill must not take; nothing is there until the work puts it there."""
    return _scratch(root, _key_of(material)[0])


def _scratch(root: Path, key: str) -> Path:
    return root / f".scratch-{key}"


def _key_of(material: Mapping[str, Any]) -> tuple[str, str]:
    """The key, and the text that it is the digest of."""
    full = {**material, "code": code_digest()}
    text = json.dumps(full, indent=2, sort_keys=True, default=str) + "\n"
    return hashlib.sha256(text.encode()).hexdigest(), text


def _read(folder: Path, kind: Kind, key: str) -> Entry | None:
    """The entry in `folder`, or None where there is none or it is not what was sealed."""
    try:
        record = json.loads((folder / "entry.json").read_text(encoding="utf-8"))
        artifact = seal(folder / "artifact", kind)
        if (artifact.digest, artifact.kind) == (record["digest"], record["kind"]):
            with suppress(OSError):  # somebody else's cache may be read all the same
                os.utime(folder)  # when it was last used, for who makes room
            return Entry(artifact, record["facts"], record["seconds"], cached=True, key=key)
    except FileNotFoundError:
        if not folder.exists():
            return None
    except (OSError, ValueError, KeyError, TypeError):
        pass
    discard(folder)
    return None


def _write(root: Path, key: str, material: str, kind: Kind, build: Callable[[Path], Facts]) -> Entry:
    root.mkdir(parents=True, exist_ok=True)
    sweep_partials(root)
    partial = Path(tempfile.mkdtemp(prefix=f"{_partial_name()}-", dir=root))
    try:
        (partial / "artifact").mkdir()
        start = time.perf_counter()
        with _safetensors_as_oserror():
            facts = build(partial / "artifact")
        seconds = time.perf_counter() - start
        artifact = seal(partial / "artifact", kind)
        record = {"kind": kind, "digest": artifact.digest, "facts": facts, "seconds": round(seconds, 3)}
        (partial / "material.json").write_text(material, encoding="utf-8")
        (partial / "entry.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        while not _place(partial, root / key):
            theirs = _read(root / key, kind, key)
            if theirs is not None:
                return theirs
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    moved = artifact.model_copy(update={"path": root / key / "artifact"})
    return Entry(moved, facts, seconds, cached=False, key=key)


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
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    return True


def discard(folder: Path) -> None:
    """Move an entry aside in one step, then delete it."""
    aside = folder.parent / f"{_partial_name()}-{folder.name[:16]}"
    try:
        folder.rename(aside)
    except FileNotFoundError:
        return
    shutil.rmtree(aside, ignore_errors=True)


def sweep_partials(root: Path) -> None:
    """Remove what killed processes left behind."""
    for folder in root.glob(f".partial-{_host()}-*"):
        owner = folder.name.removeprefix(f".partial-{_host()}-").split("-")[0]
        if owner.isdigit() and int(owner) != os.getpid() and not _alive(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)
    for folder in root.glob(".scratch-*"):
        if time.time() - _modified(folder) > SCRATCH_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)


def _modified(folder: Path) -> float:
    """When the folder last changed; now where it is gone."""
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:
        return time.time()


def _host() -> str:
    """This machine's name as one word: a process number means nothing on another machine."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _partial_name() -> str:
    return f".partial-{_host()}-{os.getpid()}"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


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
