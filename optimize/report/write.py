"""Write a run's pages and its pictures beside the manifest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from optimize.files.putting import put_file
from optimize.manifest import Manifest
from optimize.report.html.evidence import read_evidence
from optimize.report.html.page import render_html
from optimize.report.page import render
from optimize.report.pictures.draw import FILES, Picture, draw

PAGE, HTML = "report.md", "report.html"


def write_report(manifest: Manifest, folder: Path) -> list[Picture]:
    """Write `report.md`, its pictures and `report.html`, which shows what lies beside the manifest, too.

    A picture of an earlier report that is no longer drawn is removed.
    """
    pictures = draw(manifest)
    # Before anything is written: what cannot be shown leaves the folder as it is.
    evidence = read_evidence(manifest, folder)
    page, html = render(manifest, pictures, evidence.regression), render_html(manifest, evidence)
    _put(pictures, folder)
    put_file(folder / PAGE, page.encode())
    put_file(folder / HTML, html.encode())
    return pictures


def write_pictures(manifest: Manifest, folder: Path) -> list[Picture]:
    """Write the pictures that the manifest has numbers for, and no others."""
    pictures = draw(manifest)
    _put(pictures, folder)
    return pictures


def _put(pictures: Sequence[Picture], folder: Path) -> None:
    for name in FILES:
        (folder / name).unlink(missing_ok=True)
    for picture in pictures:
        (folder / picture.file).write_bytes(picture.content)
