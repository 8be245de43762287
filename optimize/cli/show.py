"""What `optimize show` prints: a manual page rather than a table, since it fits any width."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from optimize.cli.parameters import as_yaml

if TYPE_CHECKING:
    from optimize.cli.names import Document

WIDEST = 100
"""Longer lines are hard to read."""
USES = {
    "stage": "Set one with: optimize run --set {name}.PARAMETER=VALUE",
    "target": "Set one with: optimize run --target {name} --set runtime.SETTING=VALUE",
    "limits": "Set one with: optimize run --set gates.LIMIT=VALUE",
    "section": "Set one with: optimize run --set {name}.PARAMETER=VALUE",
    "tuning": "Set one with: optimize tune --set {name}.PARAMETER=VALUE",
    "pipeline": "Run it with: optimize run --pipeline {name}. To edit it: optimize copy {name} mine.yaml",
}


def show_documents(documents: Sequence[Document]) -> None:
    """Print all that a name stands for."""
    from rich.console import Console
    from rich.markup import escape

    console = Console(width=None if sys.stdout.isatty() else WIDEST, highlight=False)
    width = min(console.width, WIDEST)
    for place, document in enumerate(documents):
        for line in (*([""] if place else []), *lines_of(document, width)):
            heading = line and not line.startswith(" ") and ":" not in line
            # Lines are wrapped already, with what belongs together under one another; rich would break them again.
            console.print(f"[bold]{escape(line)}[/]" if heading else escape(line), soft_wrap=True)


def lines_of(document: Document, width: int) -> Iterator[str]:
    """The page of one document, in lines of at most `width` characters; headings begin at the margin."""
    kind, name = next(iter(document.items()))
    yield f"{kind} {name}"
    yield from _prose(document["summary"], width, "  ")
    facts = {key: value for key, value in document.items() if key not in (kind, "summary", "parameters")}
    yield ""
    for key, value in facts.items():
        if isinstance(value, str):
            yield from _entry(f"{key.replace('_', ' ')}: {value}", width)
        elif value:
            yield from _entry(f"{key.replace('_', ' ')}:", width)
            yield from [line for item in _items(value) for line in _entry(item, width, "    ")]
    parameters = document.get("parameters", [])
    if parameters:
        yield ""
        yield "parameters"
    for each in parameters:
        yield from _parameter(each, width, "  ")
    if kind in USES and parameters != []:
        yield ""
        yield from _prose(USES[kind].format(name=name), width, "")


def _items(value: Sequence[object] | Mapping[str, object]) -> list[str]:
    """Names in one item; a mapping's entries and a pipeline's steps in one each, as YAML has them."""
    if isinstance(value, Mapping):
        return [f"{key}: {as_yaml(each)}" for key, each in value.items()]
    if all(isinstance(each, str) for each in value):
        return [", ".join(map(str, value))]
    return [f"{number}. {as_yaml(step)[1:-1].removesuffix(': {}')}" for number, step in enumerate(value, 1)]


def _parameter(each: Document, width: int, indent: str) -> Iterator[str]:
    """Name, type, bounds and default on one line, what it means below."""
    kind = ", ".join([each["type"], *each["bounds"]])
    default = "required" if each["default"] is None else f"default {each['default']}"
    yield from _entry(f"{each['name']}  ({kind}; {default})", width, indent)
    yield from _prose(each["meaning"], width, f"{indent}    ")
    for inner in each["fields"]:
        yield from _parameter(inner, width, f"{indent}    ")


def _prose(text: str, width: int, indent: str) -> list[str]:
    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent)


def _entry(text: str, width: int, indent: str = "  ") -> list[str]:
    """What goes on further to the right where it does not fit on a line."""
    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=f"{indent}    ")
