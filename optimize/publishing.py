"""Publish a passed run as a folder to hand on: model, tokenizer, model card, pictures, manifest, checksums.

What is published is what was judged: the run must have passed, and its model's digest must be the
manifest's. The card and its pictures are made from measurements alone. The folder is assembled beside its
destination and renamed, so it is there whole or not at all.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from optimize import manifest
from optimize.artifact import file_digest
from optimize.assembling import assembled
from optimize.errors import RequestError
from optimize.manifest import Manifest
from optimize.report.card import render_card
from optimize.report.write import write_pictures, write_report

CHECKSUMS = "SHA256SUMS"
CARD = "card.md"


def publish_folder(run: Path, destination: Path) -> None:
    """Write the publication of a run folder.

    Refuses a verdict other than passed, a model that is not the manifest's, and a destination
    with other content. Publishing the same run again to the same place changes nothing.
    """
    record = manifest.read(run)
    if record.verdict.outcome != "passed":
        raise RequestError(f"{run}: its verdict is {record.verdict.outcome}; only a passed run is published")
    manifest.final_model(run, record)
    destination = destination.resolve()  # where it is a link, the publication goes where that leads
    with assembled(destination.parent, destination.name) as partial:
        assemble(run, record, partial)
        _put(partial, destination)


def assemble(run: Path, record: Manifest, folder: Path) -> None:
    """Fill `folder` with the publication; checksums of all other files come last."""
    shutil.copytree(run / manifest.MODEL, folder, dirs_exist_ok=True)
    if checkpoint := manifest.kept_checkpoint(run, record):
        shutil.copytree(checkpoint.path, folder / manifest.CHECKPOINT)
    shutil.copyfile(run / "manifest.json", folder / "manifest.json")
    pictures = write_pictures(record, folder)
    card = render_card(record, pictures, checkpoint=checkpoint is not None)
    (folder / "README.md").write_text(card, encoding="utf-8")
    # As sha256sum writes them, so that `sha256sum --check` reads them.
    lines = [f"{file_digest(folder / name)}  {name}\n" for name in _files(folder)]
    (folder / CHECKSUMS).write_text("".join(lines), encoding="utf-8")


def published_files(folder: Path) -> dict[str, str]:
    """The files of a publication and their SHA-256."""
    stated = {}
    for line in (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        stated[name] = digest
    return stated


def render_again(run: Path, *, card: bool) -> list[Path]:
    """Write a run's report and pictures from its manifest, and with `card` its model card; gives what was written.

    Refuses a publication, whose checksums would not be true any more.
    """
    record = manifest.read(run)
    if (run / CHECKSUMS).exists():
        raise RequestError(f"{run}: is a publication, whose checksums hold its files; publish its run again")
    if card and not record.measurements:
        raise RequestError(f"{run}: nothing was measured, so there is nothing to put on a card; leave out --card")
    pictures = write_report(record, run)
    written = [run / "report.md", *(run / picture.file for picture in pictures)]
    if card:
        checkpoint = manifest.kept_checkpoint(run, record)
        text = render_card(record, pictures, checkpoint=checkpoint is not None)
        (run / CARD).write_text(text, encoding="utf-8")
        written.append(run / CARD)
    return written


def _put(partial: Path, destination: Path) -> None:
    """Rename into place; a destination with the same content is left alone, any other is refused."""
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        sums = destination / CHECKSUMS
        if sums.is_file() and sums.read_bytes() == (partial / CHECKSUMS).read_bytes() and _intact(destination):
            return
        raise RequestError(f"{destination}: has other content; name a new or empty folder")
    partial.rename(destination)


def _files(folder: Path) -> list[str]:
    """The files of a folder, those of folders in it as well."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _intact(folder: Path) -> bool:
    """Whether a folder holds exactly what its checksums say."""
    stated = published_files(folder)
    # Names first: a digest of every file is slow, and pointless where one is missing or too many.
    found = set(_files(folder)) - {CHECKSUMS}
    return found == set(stated) and all(file_digest(folder / name) == digest for name, digest in stated.items())
