"""Pages of HTML read as a browser would, and evidence made by hand."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import numpy as np

from optimize.examples import Answer, Example
from optimize.manifest import Manifest
from optimize.report.html.evidence import Evidence

VOID = {"meta", "input", "br", "link", "img", "hr"}
RAW = ("style", "script")


class Page(HTMLParser):
    """All elements with their attributes, and the text below each kind of element; refuses tags that do not match."""

    def __init__(self, content: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[tuple[str, ...], str]] = []
        self._open: list[str] = []
        self.feed(content)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((tuple(self._open), data))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of all elements of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]

    def text(self, tag: str = "") -> str:
        """What is shown, or what stands below elements of a kind."""
        shown = [data for path, data in self.texts if tag in path or (not tag and not set(RAW) & set(path))]
        return " ".join(" ".join(shown).split())

    def attributes(self) -> Iterator[tuple[str, str]]:
        """Name and value of every attribute."""
        for _, attributes in self.elements:
            for name, value in attributes.items():
                yield name, value or ""


def answer(words: str | None, confidence: float | None = 0.9, *, right: bool | None = True) -> Answer:
    decisions = [] if confidence is None or right is None else [(confidence, right)]
    return Answer(answer=words, confidence=confidence, right=right, decisions=decisions)


def example(
    text: str = "A fine film.", before: str = "good", after: str = "good", gold: str = "good", **changes: Any
) -> Example:
    """One that is right where its words are the right ones."""
    fields = {
        "texts": {"text": text},
        "tokens": 5,
        "gold": gold,
        "same": before == after,
        "reference": answer(before, right=before == gold),
        "result": answer(after, right=after == gold),
    }
    return Example(**{**fields, **changes})


def evidence_of(manifest: Manifest, *examples: Example) -> Evidence:
    """Runs of every model at every shape, about its median, and these examples."""
    spread = np.linspace(0.8, 1.6, 40)
    runs = {}
    for measurement in manifest.measurements:
        for each in measurement.latency:
            runs[measurement.name, each.shape] = each.p50_ms / 1e3 * spread
    return Evidence(runs, examples)
