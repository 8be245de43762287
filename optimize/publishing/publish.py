"""Publish a finished run: judge it again, assemble its publication, put it, and read back what was put."""

from __future__ import annotations

import os
import tempfile
from contextlib import closing
from pathlib import Path

from optimize.data.urls import is_url, local_path
from optimize.errors import RequestError
from optimize.files.assembling import assembled
from optimize.interfaces import Progress, Silence
from optimize.publishing.destinations import destination_of
from optimize.publishing.destinations.interface import Terms
from optimize.publishing.publication import assemble, judged
from optimize.publishing.receiving import open_publication, receive
from optimize.request import user_path


def publish(run: Path, address: str, terms: Terms | None = None, *, progress: Progress | None = None) -> str:
    """Put the publication of a run folder at an address; the address under which exactly it is read back.

    Refuses a run that has not passed by its own measurements, a model that is not the manifest's, and a destination
    with other content, in the run or around it. Publishing the same run again to the same place changes nothing.
    """
    terms, progress = terms or Terms(), progress or Silence()
    destination = destination_of(address)
    _require_outside(run, address)
    destination.check(address, terms)
    record, final = judged(run)
    with assembled(Path(tempfile.gettempdir()), "publication") as folder:
        assemble(run, record, final, folder)
        put = destination.put(folder, address, terms, progress)
        with closing(destination.read(put, progress)) as sent:
            receive(*open_publication(sent, put), where=put, progress=progress)
    return put


def _require_outside(run: Path, address: str) -> None:
    """Refuse a place on this machine that lies in the run or around it."""
    if is_url(local := local_path(address)):
        return
    user_path(local, "the place to publish to")
    place = Path(os.path.realpath(local))  # which goes through links that lead to themselves, too
    for folder in (place, *place.parents):
        if folder.exists() and folder.samefile(run):
            raise RequestError(f"{address}: lies in the run that is published; name a folder outside {run}")
    if place.exists() and any(folder.samefile(place) for folder in run.resolve().parents):
        raise RequestError(f"{address}: holds the run that is published; name a new or empty folder")
