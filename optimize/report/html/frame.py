"""What all pages share: style, script, and the policy that lets nothing else in; they extend `frame.html.jinja`."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment

HERE = Path(__file__).parent


def fill(template: str, **values: object) -> str:
    """A page: a template of this folder with its values, a `title` and a `headline` among them; text is escaped."""
    script, style = (_file(name) for name in ("script.js", "style.css"))
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src '{_digest(script)}'"
    return _templates().get_template(template).render(style=style, script=script, policy=policy, **values)


def _digest(script: str) -> str:
    """What a policy calls the one script that it lets run."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


@cache
def _file(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


@cache
def _templates() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
