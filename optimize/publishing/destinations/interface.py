"""What a destination has to do: take a publication, whole or not at all, and give it back file by file."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from optimize.interfaces import Progress


@dataclass(frozen=True)
class Sent:
    """A file as it comes from a destination: its name, its size in bytes as is stated there, and its content, once.

    Nothing of it is to be believed before it was checked.
    """

    name: str
    size: int
    chunks: Iterable[bytes]


@dataclass(frozen=True)
class Terms:
    """How a publication is to be put.

    `replace` allows other content there to go. `public`, `pull_request` and `message` are for repositories.
    """

    replace: bool = False
    public: bool = False
    pull_request: bool = False
    message: str | None = None


class Destination(Protocol):
    """One kind of destination; a `place` is an address of that kind.

    `has` are the terms that mean something there.
    """

    has: frozenset[str]

    def check(self, place: str, terms: Terms) -> None:
        """Refuse, before anything is assembled, a place that cannot be published to."""

    def put(self, folder: Path, place: str, terms: Terms, progress: Progress) -> str:
        """Put a publication that lies in a folder; the address under which exactly this one is read back.

        Where the same is there already, nothing changes. Raises RequestError where something else is, unless it may
        be replaced, and UnavailableError where the destination fails.
        """

    def read(self, place: str, progress: Progress) -> Generator[Sent]:
        """The files that are there, in the order of `checksums.ordered`; each is read before the next is asked for.

        Raises RequestError where nothing is there.
        """
