"""What a page is made of: sections of charts and tables, all of it text that the template escapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup


@dataclass(frozen=True)
class Chart:
    """A drawing for narrow screens and, where it gains by it, one for wide ones; `about` says what it shows."""

    title: str
    about: str
    narrow: Markup
    wide: Markup | None = None


@dataclass(frozen=True)
class Table:
    """Rows of text, header first; the first `words` columns hold words, all others numbers."""

    title: str
    rows: Sequence[Sequence[str]]
    about: str = ""
    words: int = 1
    folded: bool = False


@dataclass(frozen=True)
class Section:
    """A part of the page under its own heading; `missing` says why something is not in it, `notes` what to know."""

    id: str
    title: str
    about: str = ""
    charts: Sequence[Chart] = ()
    tables: Sequence[Table] = ()
    missing: str = ""
    notes: Sequence[Markup] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to show and nothing to say."""
        return not (self.charts or self.tables or self.missing or self.notes)


def from_markdown(line: str) -> Markup:
    """A line of the Markdown page in HTML; HTML in it is shown and not obeyed."""
    from markdown_it import MarkdownIt

    return Markup(MarkdownIt("commonmark", {"html": False}).renderInline(line))
