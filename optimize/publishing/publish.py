"""Publish finished runs: judge them again, assemble their publication, put it, and read back what was put."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import fields, replace
from pathlib import Path
from typing import NamedTuple

from optimize.data.urls import is_url, local_path, without_secrets
from optimize.errors import RequestError
from optimize.files.assembling import assembled
from optimize.interfaces import Progress, Silence
from optimize.publishing.checksums import read_checksums
from optimize.publishing.destinations import destination_of
from optimize.publishing.destinations.interface import Destination, Terms
from optimize.publishing.earlier import earlier_variants
from optimize.publishing.layouts import DEFAULT, find_layout
from optimize.publishing.layouts.layout import check_layout
from optimize.publishing.publication import assemble, judged
from optimize.publishing.receiving import open_publication, receive
from optimize.publishing.secrets import require_no_secrets
from optimize.publishing.several import assemble_variants, variant_of
from optimize.publishing.signing import check_key, sign
from optimize.report.paths import without_paths
from optimize.request import user_path


class Published(NamedTuple):
    """Where a publication can be read from, exactly this one, and its files' SHA-256 by their names."""

    address: str
    files: dict[str, str]


def publish(
    runs: Path | Sequence[Path],
    address: str,
    terms: Terms | None = None,
    *,
    add: bool = False,
    layout: str = DEFAULT,
    unverified: bool = False,
    sign_key: Path | None = None,
    progress: Progress | None = None,
) -> Published:
    """Put the publication of a run folder, or of several of one checkpoint, at an address, and read it back.

    `layout` says for whom the model's files are arranged; one that cannot hold the model is refused. Several models are
    arranged as the Hub's readers look for a model's variants. With `add`, they go beside those that are there already.

    Refuses a run that has not passed by its own measurements, a model that is not the manifest's, and a destination
    with other content, in the run or around it. Publishing the same run again to the same place changes nothing. With
    `unverified`, a run whose limits could not all be checked is published as such; a failed one never is. `sign_key` is
    an elliptic curve's private key in PEM.
    """
    terms, progress = terms or Terms(), progress or Silence()
    address = local_path(address)
    destination, arranged = destination_of(address), find_layout(layout)
    runs = [runs] if isinstance(runs, Path) else list(runs)
    for run in runs:
        _require_outside(run, address)
    if (len(runs) > 1 or add) and layout != DEFAULT:
        raise RequestError(f"--layout {layout}: holds one model; name one run, or leave it out")
    if add and terms.replace:
        raise RequestError("--replace: lets go what is there, and --add keeps it; give one of the two")
    _require_meant(destination, address, terms)
    destination.check(address, terms)
    if sign_key:
        check_key(sign_key, "--sign-key")
    models = [(run, *judged(run, unverified=unverified)) for run in runs]
    for _, record, _ in models:
        check_layout(layout, arranged, record)
    kept = earlier_variants(address, sign=sign_key is not None, progress=progress) if add else []
    known = [each.record for each in kept]
    variants = [*kept, *(variant_of(*model) for model in models if without_paths(model[1]) not in known)]
    with assembled(Path(tempfile.gettempdir()), "publication") as folder:
        if len(models) > 1 or add:
            assemble_variants(variants, folder)
        else:
            assemble(*models[0], folder, arranged)
        require_no_secrets(folder)
        if sign_key:
            sign(folder, sign_key)
        put = destination.put(folder, address, replace(terms, replace=terms.replace or add), progress)
        with closing(destination.read(put, progress)) as sent:
            receive(*open_publication(sent, put), where=put, progress=progress)
        return Published(put, read_checksums(folder))


def _require_meant(destination: Destination, address: str, terms: Terms) -> None:
    """Refuse terms that mean nothing at a destination of that kind."""
    for each in fields(terms):
        if getattr(terms, each.name) and each.name not in destination.has:
            flag = each.name.replace("_", "-")
            raise RequestError(f"--{flag}: means nothing for {without_secrets(address)}; leave it out")


def _require_outside(run: Path, address: str) -> None:
    """Refuse a place on this machine that lies in the run or around it."""
    if is_url(address):
        return
    user_path(address, "the place to publish to")
    if not run.exists():
        return  # which is refused where it is read
    place = Path(os.path.realpath(address))  # which goes through links that lead to themselves, too
    for folder in (place, *place.parents):
        if folder.exists() and folder.samefile(run):
            raise RequestError(f"{address}: lies in the run that is published; name a folder outside {run}")
    if place.exists() and any(folder.samefile(place) for folder in run.resolve().parents):
        raise RequestError(f"{address}: holds the run that is published; name a new or empty folder")
