"""JSON on stdout, and the exit codes of verdicts."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optimize.request import Request


EXIT_CODES = {"passed": 0, "failed": 1, "unverified": 4}


def dump_request(request: Request) -> str:
    """A request as its manifest has it."""
    return json.dumps(dataclasses.asdict(request), indent=2)


def print_json(documents: Iterable[str | Mapping[str, object]]) -> None:
    """One document as it is, several as a JSON array; text is JSON already."""
    texts = [each.strip() if isinstance(each, str) else json.dumps(each, indent=2) for each in documents]
    print(texts[0] if len(texts) == 1 else "[" + ",\n".join(texts) + "]")
