"""The models that a publication has already, so that others can be added to them.

They are verified, and stay as they are. A publication of one model becomes the first of several: its card and what
follows from the card are written anew, since its graph gets a name.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from optimize.data.urls import without_secrets
from optimize.errors import RequestError
from optimize.finished import read_run
from optimize.interfaces import Progress
from optimize.manifest import CHECKPOINT, Manifest
from optimize.publishing.checksums import CHECKSUMS, SIGNATURE
from optimize.publishing.fetching import fetch_all, one_of
from optimize.publishing.names import JUDGED, OURS
from optimize.publishing.publication import describe
from optimize.publishing.several import Variant
from optimize.publishing.variants import variant_names
from optimize.publishing.verifying import findings_of
from optimize.report.graph_names import graph_name
from optimize.report.usage import usage


def earlier_variants(address: str, *, sign: bool, progress: Progress) -> list[Variant]:
    """The models of the publication at an address.

    Raises RequestError where none is there, one of them is not what it says of itself, or its signature would be lost
    because nobody will `sign` the whole anew.
    """
    folder, shown = fetch_all(address, progress=progress), without_secrets(address)
    if not (folder / CHECKSUMS).is_file():
        raise RequestError(f"{shown}: is a run, not a publication; name a publication, or leave out --add")
    if (folder / SIGNATURE).is_file() and not sign:
        raise RequestError(f"{shown}: is signed, and another model needs another signature; add --sign-key")
    if names := variant_names(folder):
        return [_of_several(one_of(folder, name), f"{shown}#{name}") for name in names]
    return [_of_one(folder, shown)]


def _of_several(own: Path, where: str) -> Variant:
    def fill(folder: Path) -> None:
        shutil.copytree(own, folder, dirs_exist_ok=True)

    return Variant(where, _verified(own, where), fill)


def _of_one(alone: Path, where: str) -> Variant:
    if (alone / JUDGED).is_file():
        raise RequestError(f"{where}: is arranged for one model; publish to a place of its own")
    record, anew = _verified(alone, where), set(OURS) - {CHECKPOINT}

    def is_written_anew(place: str, _: list[str]) -> set[str]:
        return anew if Path(place) == alone else set()

    def fill(folder: Path) -> None:
        shutil.copytree(alone, folder, dirs_exist_ok=True, ignore=is_written_anew)
        describe(folder, record, use=usage(record, graph_name(record)), where=alone)

    return Variant(where, record, fill)


def _verified(folder: Path, where: str) -> Manifest:
    for each in findings_of(folder):
        if each.outcome == "wrong":
            raise RequestError(f"{where}: {each.what}: {each.words}; publish its run again, with --replace")
    return read_run(folder)
