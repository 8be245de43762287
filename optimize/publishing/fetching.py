"""A publication from wherever it is, as a verified folder on this machine: the one way by which anything reads one."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from optimize import manifest
from optimize.data.urls import local_path, without_secrets
from optimize.errors import RequestError
from optimize.files.assembling import assembled
from optimize.finished import judged_model, read_run
from optimize.interfaces import Progress, Silence
from optimize.machine.environment import cache_root
from optimize.publishing.checksums import CHECKSUMS, faults, require_intact
from optimize.publishing.destinations import destination_of, kind_of
from optimize.publishing.receiving import open_publication, receive
from optimize.publishing.variants import choose, lay_out, split, stated, variant_names

KEPT = "publications"
"""The folder of the user's cache that holds what was fetched, each under the digest of its checksums and signature."""


def fetch(where: str, *, progress: Progress | None = None) -> Path:
    """The verified folder of one model: of a publication, or a run, that is named by a path or an address.

    Of a publication of several models, `#NAME` behind its place says which is meant.

    Raises as `fetch_all` does, and RequestError where the publication has no such model, or several and none is named.
    """
    place, name = split(local_path(where))
    folder = fetch_all(place, progress=progress)
    if name is None and not variant_names(folder):
        return folder
    return one_of(folder, choose(folder, name, without_secrets(place)))


def one_of(folder: Path, name: str) -> Path:
    """The folder of one model of a verified publication of several, as if it had been published alone."""
    return _kept(hashlib.sha256(stated(folder, name)).hexdigest(), lambda partial: lay_out(folder, name, partial))


def fetch_all(where: str, *, progress: Progress | None = None) -> Path:
    """The verified folder of a publication with all of its models, or of a run, that is named by a path or an address.

    A folder of this machine is verified and returned as it is: a publication by its checksums, a run by its manifest,
    whose model has to be the one that was judged. What is elsewhere, or packed, is fetched into the user's cache,
    unless it is there already. Nobody may write into what is returned.

    Raises RequestError for what is no publication, or not what its checksums say, SealError for links, pipes and
    devices in it, and UnavailableError where it cannot be had here or now.
    """
    where = local_path(where)
    if kind_of(where) == "folder":
        return _verified(Path(where))
    progress = progress or Silence()
    with closing(destination_of(where).read(where, progress)) as sent:
        first, files = open_publication(sent, where)
        known = hashlib.sha256(b"".join(hashlib.sha256(first[name]).digest() for name in sorted(first))).hexdigest()
        return _kept(known, lambda partial: receive(first, files, where=where, progress=progress, into=partial))


def _kept(name: str, fill: Callable[[Path], None]) -> Path:
    """The folder of this name in the user's cache, filled unless it is there already, and whole."""
    kept = cache_root() / KEPT / name
    if _is_intact(kept):
        return kept
    with assembled(kept.parent, name) as partial:
        fill(partial)
        # What is there by now is damaged, or has just been fetched by another process, which is as good.
        if os.path.lexists(kept) and not _is_intact(kept):
            shutil.rmtree(kept)
        if not kept.exists():
            partial.rename(kept)
    return kept


def _verified(folder: Path) -> Path:
    """The folder itself."""
    if os.path.lexists(folder / CHECKSUMS):
        require_intact(folder)
    elif os.path.lexists(folder / manifest.FILE):
        judged_model(folder, read_run(folder))
    else:
        what = "is no run and no publication" if folder.is_dir() else "no such folder"
        raise RequestError(
            f"{folder}: {what}; name the folder of one, an archive, or an address such as hf://user/name"
        )
    return folder


def _is_intact(kept: Path) -> bool:
    return kept.is_dir() and (kept / CHECKSUMS).is_file() and not any(faults(kept))
