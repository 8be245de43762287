"""Where a publication may go. DESTINATIONS is the one list; one file a kind; the address says which is meant."""

from __future__ import annotations

from collections.abc import Mapping

from optimize.publishing.destinations.archive import SUFFIX, Archive
from optimize.publishing.destinations.folder import Folder
from optimize.publishing.destinations.hub import Hub
from optimize.publishing.destinations.interface import Destination
from optimize.publishing.destinations.registry import Registry
from optimize.publishing.destinations.store import Store

DESTINATIONS: Mapping[str, Destination] = {
    "folder": Folder(),
    "archive": Archive(),
    "hub": Hub(),
    "registry": Registry(),
    "store": Store(),
}


def destination_of(address: str) -> Destination:
    """The destination of the kind that an address is of."""
    return DESTINATIONS[kind_of(address)]


def kind_of(address: str) -> str:
    """What kind of destination an address is of: a path is one of this machine's files, whatever lies there."""
    if "://" in address:
        return {"hf": "hub", "oci": "registry"}.get(address.partition("://")[0].lower(), "store")
    return "archive" if address.endswith(SUFFIX) else "folder"
