"""Which rows of a data set are drawn for what, and in which order; rows that cannot be used give way to others.

Where one split has to serve for all, it is cut in half by content: the SHA-256 of what a model sees of a row decides
whether the row may certify or be looked at before. So a text stays on its side whatever is added to the data set or
taken away, whatever the seed is, and however often the text is repeated.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from optimize.data.layout import CLASSES, Drawn, Rows
from optimize.interfaces import Head, Row

CERTIFYING_SHARE = 0.5
"""Of a split that has to serve for all, the part that certifies."""
HALVES = ("from the half that certifies, which the SHA-256 of each row's content decides", "from the other half")


@dataclass
class Draw:
    """Rows that can be used, of a source that has more, and what is wrong with those that were left out."""

    rows: list[Drawn]
    left_out: dict[int, str] = field(default_factory=dict)

    def note(self, table: Rows) -> list[str]:
        """What is to be said of the rows left out, if any."""
        if not self.left_out:
            return []
        looked_at = len(self.rows) + len(self.left_out)
        return [
            f"{table.name}: left out {len(self.left_out):,} of {looked_at:,} rows drawn, which cannot be used: "
            f"{' | '.join(table.named(self.left_out))}"
        ]


def draw_usable(table: Rows, source: Iterator[Drawn], count: int, *, most: float) -> Draw:
    """At most so many rows that can be used; DataError where more than the share `most` of those looked at cannot."""
    draw = Draw(list(islice(source, count)))
    while faults := table.faults(draw.rows):
        draw.left_out |= faults
        if len(draw.left_out) > most * (len(draw.rows) + len(draw.left_out) - len(faults)):
            table.refuse(draw.rows)
        draw.rows = [each for each in draw.rows if each[0] not in faults]
        draw.rows += islice(source, len(faults))
    return draw


def two_sources(certified: Rows, others: Rows, head: Head, *, examples: int, seed: int) -> tuple[Iterator[Drawn], ...]:
    """Rows that may certify, and rows for all else, each in random order; the second is read once the first is done.

    Rows are read one by one as they are drawn, because a split may have millions of them.
    """
    if others is certified:
        return _halves(certified.draw(_shuffled(len(certified), seed)), head)
    return certified.draw(_sampled(len(certified), examples, seed)), others.draw(_shuffled(len(others), seed))


def _shuffled(count: int, seed: int) -> list[int]:
    order = list(range(count))
    random.Random(seed).shuffle(order)
    return order


def _sampled(count: int, size: int, seed: int) -> Iterator[int]:
    """A sample of so many, and then the others, for which it is shuffled only where one is asked for."""
    chosen = random.Random(seed).sample(range(count), min(size, count))
    yield from chosen
    left = sorted(set(range(count)).difference(chosen))
    random.Random(seed).shuffle(left)
    yield from left


def _halves(walk: Iterator[Drawn], head: Head) -> tuple[Iterator[Drawn], Iterator[Drawn]]:
    """The rows of each side; what the first passes over waits for the second."""
    waiting: list[Drawn] = []

    def certifying() -> Iterator[Drawn]:
        for drawn in walk:
            if certifies(drawn[1], head):
                yield drawn
            else:
                waiting.append(drawn)

    def rest() -> Iterator[Drawn]:
        yield from waiting
        yield from (drawn for drawn in walk if not certifies(drawn[1], head))

    return certifying(), rest()


def certifies(row: Row, head: Head) -> bool:
    """Whether a row is on the side that certifies where its split has to be cut."""
    return int(content_digest(row, head)[:16], 16) < CERTIFYING_SHARE * 16**16


def unseen(source: Iterator[Drawn], seen: set[str], head: Head) -> Iterator[Drawn]:
    """Rows whose content is not in `seen`, which grows by theirs."""
    for index, row in source:
        if (digest := content_digest(row, head)) not in seen:
            seen.add(digest)
            yield index, row


def content_digest(row: Row, head: Head) -> str:
    """Digest of what the model sees of a row: labels, answers and identifiers left out."""
    hidden = {"label", "score", "answers", "id", "title", head.labels, CLASSES}
    content = {role: value for role, value in row.items() if role not in hidden}
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def rows_digest(rows: Iterable[Row]) -> str:
    """Digest of rows in their order, labels included."""
    total = hashlib.sha256()
    for row in rows:
        total.update(json.dumps(row, sort_keys=True, default=str).encode() + b"\n")
    return total.hexdigest()
