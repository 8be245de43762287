"""A finished run's pages written again from its manifest: report, pictures and card."""

from __future__ import annotations

from pathlib import Path

from optimize import manifest
from optimize.errors import RequestError
from optimize.files.putting import put_file
from optimize.finished import as_stated, read_run
from optimize.publishing.checksums import CHECKSUMS
from optimize.report.card import render_card
from optimize.report.write import HTML, PAGE, write_report

CARD = "card.md"
"""The card of a run beside its report; a publication's is its README."""


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
