"""Publish a passed run as a folder to hand on: model, tokenizer, model card, pictures, manifest, checksums.

What is published is what was judged: the run must pass by its measurements, these must be of its model, and its model's
digest must be the manifest's. The card and its pictures are made from measurements alone. The folder is assembled
beside its destination and renamed, so it is there whole or not at all.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from optimize import manifest
from optimize.artifact import Artifact, copy_sealed, file_digest, sealed_files
from optimize.errors import RequestError, SealError
from optimize.files.assembling import assembled
from optimize.files.putting import put_file
from optimize.finished import as_stated, judge_again, judged_model, read_run, require_passed
from optimize.heads import head_of
from optimize.manifest import Manifest
from optimize.measure.kinds import KINDS
from optimize.planning import check_place
from optimize.report.card import render_card
from optimize.report.pictures.draw import FILES
from optimize.report.write import HTML, PAGE, write_pictures, write_report
from optimize.request import user_path

CHECKSUMS = "SHA256SUMS"
CARD_FILE = "README.md"
CARD = "card.md"
"""The card of a publication, and of a run beside its report."""
OURS = (CARD_FILE, CHECKSUMS, manifest.FILE, manifest.CHECKPOINT, *FILES)
"""What a publication has beside the files of its model."""


def publish_folder(run: Path, destination: Path) -> None:
    """Write the publication of a run folder.

    Refuses a run that has not passed by its own measurements, a model that is not the manifest's, and a destination
    with other content, in the run or around it. Publishing the same run again to the same place changes nothing.
    """
    record = read_run(run)
    _require_free(run, destination)
    final = judged_model(run, record)
    require_passed(run, record, "published")
    record = record.model_copy(update={"verdict": judge_again(run, record, final)})
    destination = destination.resolve()
    with assembled(destination.parent, destination.name) as partial:
        assemble(run, record, final, partial)
        _put(partial, destination)


def assemble(run: Path, record: Manifest, final: Artifact, folder: Path) -> None:
    """Fill the empty `folder` with the publication; checksums of all other files come last."""
    copy_sealed(final, folder)
    for path in folder.iterdir():
        if path.name in OURS:
            raise RequestError(f"{final.path / path.name}: has a name that publications need; run it again")
    checkpoint = manifest.kept_checkpoint(run, record)
    if checkpoint:
        head = head_of(record.request.head, checkpoint.path, record.request.head_code)
        KINDS[checkpoint.kind].require_whole(checkpoint, head)
        copy_sealed(checkpoint, folder / manifest.CHECKPOINT)
    shutil.copyfile(run / manifest.FILE, folder / manifest.FILE)
    with as_stated(run):
        pictures = write_pictures(record, folder)
        card = render_card(record, pictures, checkpoint=checkpoint is not None)
    (folder / CARD_FILE).write_text(card, encoding="utf-8")
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
    record = read_run(run)
    if (run / CHECKSUMS).exists():
        raise RequestError(f"{run}: is a publication, whose checksums hold its files; publish its run again")
    if card and not record.measurements:
        raise RequestError(f"{run}: nothing was measured, so there is nothing to put on a card; leave out --card")
    with as_stated(run):
        pictures = write_report(record, run)
    written = [run / PAGE, run / HTML, *(run / picture.file for picture in pictures)]
    if card:
        checkpoint = manifest.kept_checkpoint(run, record)
        with as_stated(run):
            text = render_card(record, pictures, checkpoint=checkpoint is not None)
        put_file(run / CARD, text.encode())
        written.append(run / CARD)
    return written


def _require_free(run: Path, destination: Path) -> None:
    """Refuse a destination that is a link, lies in the run or around it, or has no place to be."""
    where = "the folder to publish to"
    if user_path(str(destination), where).is_symlink():
        raise RequestError(f"{destination}: is a link; name the folder itself, which must be new or empty")
    place = destination.resolve()
    for folder in (place, *place.parents):
        if folder.exists() and folder.samefile(run):
            raise RequestError(f"{destination}: lies in the run that is published; name a folder outside {run}")
        if folder.exists() and not folder.is_dir():
            raise RequestError(f"{folder}: is not a folder; name a new or empty folder to publish to")
    if place.exists() and any(folder.samefile(place) for folder in run.resolve().parents):
        raise RequestError(f"{destination}: holds the run that is published; name a new or empty folder")
    check_place(place.parent, where)


def _put(partial: Path, destination: Path) -> None:
    """Rename into place; a destination with the same content is left alone, any other is refused."""
    if destination.exists() and any(destination.iterdir()):
        sums = destination / CHECKSUMS
        if sums.is_file() and sums.read_bytes() == (partial / CHECKSUMS).read_bytes() and _intact(destination):
            return
        raise RequestError(f"{destination}: has other content; name a new or empty folder")
    partial.rename(destination)


def _files(folder: Path) -> list[str]:
    """The files of a folder, those of folders in it as well."""
    return [path.relative_to(folder).as_posix() for path in sealed_files(folder)]


def _intact(folder: Path) -> bool:
    """Whether a folder holds exactly what its checksums say."""
    stated = published_files(folder)
    # Names first: a digest of every file is slow, and pointless where one is missing or too many.
    try:
        found = set(_files(folder)) - {CHECKSUMS}
    except SealError:
        return False
    return found == set(stated) and all(file_digest(folder / name) == digest for name, digest in stated.items())
