"""Addresses of data, and what of them nobody else may see."""

from __future__ import annotations

import re
from urllib.parse import urlsplit, urlunsplit

SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def is_url(data: str) -> bool:
    """Whether data are named by an address such as https://…, s3://… or hf://…."""
    return SCHEME.match(data) is not None


def without_secrets(data: str) -> str:
    """An address without user, password, query and fragment, any of which may be a credential; a path as it is."""
    if not is_url(data):
        return data
    try:
        parts = urlsplit(data)
    except ValueError:  # of a host in brackets that is none
        return f"{data.partition('://')[0]}://…"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
