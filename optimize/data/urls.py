"""Addresses of data, and what of them nobody else may see."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

from optimize.errors import DataError

SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"]+")
ON_HUB = re.compile(r"hf://datasets/(?P<name>[^/@]+/[^/@]+)(?:@(?P<revision>[^/]+))?(?:/(?P<path>.*))?", re.IGNORECASE)
HUB_FORM = "hf://datasets/owner/name"


class OnHub(NamedTuple):
    """What an address on the Hub names: a data set, a revision of it, and a file or folder in it."""

    name: str
    revision: str | None
    path: str


def is_url(data: str) -> bool:
    """Whether data are named by an address such as https://…, s3://… or hf://…."""
    return SCHEME.match(data) is not None


def on_hub(data: str) -> OnHub | None:
    """What an address that begins with hf:// names; None for any other; refuses one that names no data set."""
    if not data.lower().startswith("hf://"):
        return None
    found = ON_HUB.fullmatch(data)
    if found is None:
        raise DataError(f"{without_secrets(data)}: names no data set of the Hub; write {HUB_FORM}, or its id alone")
    # A revision of several words, such as refs/convert/parquet, is written with %2F.
    revision = unquote(found["revision"]) if found["revision"] else None
    return OnHub(found["name"], revision, (found["path"] or "").strip("/"))


def local_path(data: str) -> str:
    """The path that an address of this machine's files names; anything else as it is."""
    if not data.lower().startswith("file://"):
        return data
    parts = urlsplit(data)
    if parts.netloc not in ("", "localhost"):
        raise DataError(f"{without_secrets(data)}: is on another machine; write file:///path, or the path alone")
    return unquote(parts.path)


def without_secrets(data: str) -> str:
    """An address without user, password, query and fragment, any of which may be a credential; a path as it is."""
    if not is_url(data):
        return data
    try:
        parts = urlsplit(data)
    except ValueError:  # of a host in brackets that is none
        return f"{data.partition('://')[0]}://…"
    # Of hf://, what comes after an @ is a revision.
    host = parts.netloc if parts.scheme == "hf" else parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def redacted(text: str) -> str:
    """Text in which no address has anything that may be a credential."""
    return ADDRESS.sub(lambda found: without_secrets(found[0]), text)
