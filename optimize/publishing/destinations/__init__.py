"""Where a publication may go. DESTINATIONS is the one list; one file a kind; the address says which is meant."""

from __future__ import annotations

from collections.abc import Mapping

from optimize.data.urls import is_url
from optimize.publishing.destinations.archive import SUFFIX, Archive
from optimize.publishing.destinations.folder import Folder
from optimize.publishing.destinations.interface import Destination

DESTINATIONS: Mapping[str, Destination] = {"folder": Folder(), "archive": Archive()}


def destination_of(address: str) -> Destination:
    """The destination of the kind that an address is of."""
    return DESTINATIONS[kind_of(address)]


def kind_of(address: str) -> str:
    """What kind of destination an address is of: a path is one of this machine's files, whatever lies there."""
    if is_url(address):
        return {"hf": "hub", "oci": "registry"}.get(address.partition("://")[0].lower(), "store")
    return "archive" if address.endswith(SUFFIX) else "folder"
