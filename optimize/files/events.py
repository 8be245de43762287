"""A log of events, one JSON object a line, that others may follow while it is written (`tail -f`)."""

from __future__ import annotations

import datetime
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Events:
    """Where events are written: `{"time": …, "event": …}` with whatever is to be said of each.

    Each line is written at once and whole, behind those of earlier processes. Raises OSError where that fails.
    """

    path: Path

    def write(self, event: str, **facts: object) -> None:
        """Write one event; facts are JSON's values, and numbers that are none are null."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": now, "event": event, **_plain(facts)}, ensure_ascii=False)
        # Opened anew for each line: nothing is left in a buffer, whatever becomes of the process.
        with self.path.open("ab") as stream:
            torn = stream.tell() > 0 and not _ends_a_line(self.path)
            stream.write(b"\n" * torn + line.encode() + b"\n")


def _ends_a_line(path: Path) -> bool:
    """Whether a file's last byte ends a line, as it does unless a machine died while it was written."""
    with path.open("rb") as stream:
        stream.seek(-1, 2)
        return stream.read(1) == b"\n"


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value if value is None or isinstance(value, bool | int | str) else str(value)
