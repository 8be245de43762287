"""Words of a manifest in Markdown, shown letter by letter: an id, a path or a reason is data, and may be anybody's.

HTML, links, code or emphasis in it would otherwise be the page's own, on whatever site shows it.
"""

from __future__ import annotations

import html
import re

ACTIVE = re.compile(r"[\\`*~]|(?<![^\W_])_|_(?![^\W_])|\](?=[(\[:])|(?<=!)\[|^[#+-](?=#*(\s|$))")
"""What begins something within a line, or a heading or list where the line is a block's own.

An underscore within a word and a bracket by itself are plain.
"""


class Markdown(str):
    """A table's cell that is Markdown already."""

    __slots__ = ()


def plain(text: str) -> str:
    """Text on one line, of which nothing is taken for Markdown or HTML."""
    return ACTIVE.sub(r"\\\g<0>", html.escape(_one_line(text), quote=False))


def code(text: str) -> Markdown:
    """Text on one line as code, which shows everything as it is."""
    line = _one_line(text)
    fence = "`" * (_longest_run(line) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return Markdown(f"{fence}{pad}{line}{pad}{fence}")


def code_block(text: str, language: str = "") -> str:
    """Lines as a block of code that ends where they do."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _longest_run(text: str) -> int:
    """Of backticks."""
    return max(map(len, re.findall("`+", text)), default=0)
