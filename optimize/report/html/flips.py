"""The examples that the result answers otherwise than the original, the worst first.

Worst is what was right and is wrong now, the surer the result is of it the worse; last comes what was wrong and is
right now. Where answers are numbers, none flips: shown are those that moved most.
"""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from optimize.examples import Answer, Example
from optimize.report.tables import MISSING

MOST, MOST_BYTES = 500, 900_000
"""Examples that are shown, and the bytes that their words take."""
MOST_CHARACTERS, MOST_OF_ANSWER = 700, 240
MUCH_LONGER = 3
KINDS = {
    "lost": "right before, wrong now",
    "wrong": "wrong before and now",
    "changed": "changed",
    "right": "right before and now",
    "gained": "wrong before, right now",
    "moved": "moved",
}
"""What can become of an answer, the worst first."""
KEPT_OUT = "kept out of the report"


@dataclass(frozen=True)
class Flip:
    """One example for the page: what became of its answer, its texts by role, and the answers with their confidence."""

    kind: str
    texts: Sequence[tuple[str, str]]
    gold: str
    before: str
    after: str
    before_sure: str
    after_sure: str

    @property
    def words(self) -> str:
        """What became of the answer."""
        return KINDS[self.kind]


@dataclass(frozen=True)
class Flips:
    """The examples that are shown, how many of each kind there are, and why some are not shown."""

    shown: Sequence[Flip] = ()
    counts: dict[str, int] = field(default_factory=dict)
    total: int = 0

    @property
    def left_out(self) -> int:
        """Examples that the page has no room for."""
        return self.total - len(self.shown)


def flips_of(examples: Sequence[Example], *, numbers: bool) -> Flips:
    """The examples whose answers differ, as many as a page has room for."""
    chosen = [each for each in examples if not each.same]
    ranked = sorted(chosen, key=_distance, reverse=True) if numbers else sorted(chosen, key=_badness)
    roles = _order(chosen)
    shown = list(_within_room(_flip(each, roles, numbers=numbers) for each in ranked))
    counts = Counter(_kind(each, numbers=numbers) for each in chosen)
    return Flips(shown, {kind: counts[kind] for kind in KINDS if counts[kind]}, len(ranked))


def _order(examples: Sequence[Example]) -> list[str]:
    """The roles of texts as the data have them, but for one that is much the longest: what a question is about."""
    lengths: dict[str, list[int]] = {}
    for example in examples:
        for role, text in example.texts.items():
            lengths.setdefault(role, []).append(len(text))
    means = {role: fmean(found) for role, found in lengths.items()}
    others = sorted(means.values())[:-1]
    return sorted(means, key=lambda role: bool(others) and means[role] > MUCH_LONGER * others[-1])


def _within_room(flips: Iterator[Flip]) -> Iterator[Flip]:
    held = 0
    for count, flip in enumerate(flips):
        words = [*(text for _, text in flip.texts), flip.gold, flip.before, flip.after]
        held += sum(len(html.escape(each).encode()) for each in words)
        if count >= MOST or held > MOST_BYTES:
            return
        yield flip


def _kind(example: Example, *, numbers: bool) -> str:
    before, after = example.reference.right, example.result.right
    if numbers:
        return "moved"
    if before is None or after is None:
        return "changed"
    if before == after:
        return "right" if after else "wrong"
    return "gained" if after else "lost"


def _badness(example: Example) -> tuple[int, float]:
    """What to sort by, the worst first."""
    sure = example.result.confidence or 0.0
    kind = _kind(example, numbers=False)
    return list(KINDS).index(kind), -sure


def _distance(example: Example) -> float:
    """By how much a number moved."""
    before, after = example.reference.answer, example.result.answer
    return abs(float(after) - float(before)) if before and after else 0.0


def _flip(example: Example, roles: Sequence[str], *, numbers: bool) -> Flip:
    before, after = example.reference, example.result
    quoted = [each for each in (after.answer, before.answer, example.gold) if each]
    texts = []
    for role in roles:
        if role in example.texts:
            texts.append((role.replace("_", " "), _clipped(example.texts[role], quoted, MOST_CHARACTERS)))
    gold = MISSING if example.gold is None else _clipped(example.gold, (), MOST_OF_ANSWER)
    return Flip(_kind(example, numbers=numbers), texts, gold, _said(before), _said(after), _sure(before), _sure(after))


def _said(answer: Answer) -> str:
    return KEPT_OUT if answer.answer is None else _clipped(answer.answer, (), MOST_OF_ANSWER)


def _sure(answer: Answer) -> str:
    return "" if answer.confidence is None else f"{answer.confidence:.1%}"


def _clipped(text: str, quoted: Sequence[str], most: int) -> str:
    """So many characters of a text, those around the first answer that it holds."""
    if len(text) <= most:
        return text
    places = [text.find(each) for each in quoted if each in text]
    start = max(0, min(places[0] - most // 2, len(text) - most)) if places else 0
    return f"{'…' if start else ''}{text[start : start + most]}{'…' if start + most < len(text) else ''}"
