"""What an entry is called by: the digest of everything that its content depends on, all code included."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

SHAPES_NOTHING = (
    "__main__",
    "bench",
    "certifying",
    "choosing",
    "ci",
    "cli",
    "compared",
    "comparing",
    "config",
    "delivering",
    "finished",
    "foresight",
    "planning",
    "publishing",
    "refusals",
    "report",
    "running",
    "scores",
    "search",
    "serving",
    "sweep",
    "swept",
    "tracking",
    "tuned",
    "tuning",
    "using",
)
"""Modules and folders of the package that cannot shape an artifact: they ask for it, judge it, or show it.

All other code is in every key. Coarse on purpose: an edit reruns too much rather than too little, and a new file is in
the keys without anybody having thought of it.
"""


def key_of(material: Mapping[str, Any]) -> tuple[str, str]:
    """The key, and the text that it is the SHA-256 of."""
    full = {**material, "code": code_digest()}
    text = json.dumps(full, indent=2, sort_keys=True, default=str) + "\n"
    return hashlib.sha256(text.encode()).hexdigest(), text


@cache
def code_digest() -> str:
    """SHA-256 over the source files that may shape cached content."""
    package = Path(__file__).parents[1]
    total = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package)
        if name.parts[0].removesuffix(".py") not in SHAPES_NOTHING:
            total.update(name.as_posix().encode() + b"\0" + path.read_bytes())
    return total.hexdigest()
