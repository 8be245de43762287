"""The entries in the store of a shared cache listed, removed and verified: see `optimize.cache.shared`."""

from __future__ import annotations

import re
import tarfile
import time
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path

from optimize.cache import MATERIAL
from optimize.cache.shared import Shared, download, object_name
from optimize.cli.keeping import DAMAGED, KEY, UNREADABLE, Kept, names_in
from optimize.files.leftovers import ABANDONED_SECONDS, owned_partial
from optimize.files.objects import PARTIAL
from optimize.files.tars import unpack
from optimize.interfaces import Progress

MATERIAL_BYTES = 2**14
"""Of an object's beginning, in which its material lies; that has about 2**11."""


def list_entries(shared: Shared, root: Path) -> list[Kept]:
    """All entries without their names, the last written first; `root` is the folder of the copy."""
    found = []
    for name, facts in shared.objects.listed().items():
        if match := re.fullmatch(rf"({KEY})\.tar", name):
            written, key = shared.objects.written(facts), match[1]
            found.append(Kept(key, "", "", int(facts.get("size") or 0), written, root / key))
    return sorted(found, key=lambda entry: -entry.since)


def named(shared: Shared, entries: Sequence[Kept]) -> list[Kept]:
    """The same with stage and head, for which the beginning of each is read."""
    sizes = {object_name(each.key): each.size_bytes for each in entries}
    read = shared.objects.beginnings(sizes, MATERIAL_BYTES)
    return [_named(each, read.get(object_name(each.key), b"")) for each in entries]


def _named(entry: Kept, beginning: bytes) -> Kept:
    try:
        first = next(unpack(BytesIO(beginning)))  # that there is one, or the tar would be called empty
        stage, head = names_in(b"".join(first.chunks) if first.name == MATERIAL else b"")
    except (tarfile.TarError, EOFError, StopIteration, *UNREADABLE):
        stage, head = DAMAGED, ""
    return replace(entry, stage=stage, head=head)


def collect(shared: Shared, old: Sequence[Kept]) -> None:
    """Remove entries, and what killed processes left unfinished a week ago."""
    shared.objects.remove(object_name(each.key) for each in old)
    partial = {name: facts for name, facts in shared.objects.listed().items() if name.startswith(PARTIAL)}
    left = time.time() - ABANDONED_SECONDS
    shared.objects.remove(name for name, facts in partial.items() if shared.objects.written(facts) < left)


def verify(shared: Shared, root: Path, progress: Progress) -> list[Kept]:
    """The entries that are not what was sealed; all are downloaded, and these are removed."""
    damaged = []
    entries = list_entries(shared, root)
    for done, each in enumerate(entries, 1):
        with owned_partial(root, each.key) as folder:
            sound = download(shared, folder, progress) is not None
        # What others removed meanwhile is not damaged.
        if not sound and shared.objects.facts(object_name(each.key)) is not None:
            damaged += named(shared, [each])
            shared.objects.remove([object_name(each.key)])
        progress.step("verify", done, len(entries))
    return damaged
