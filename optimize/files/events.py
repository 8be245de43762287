"""What happened, and when: a file with a JSON object a line, for who watches long work from outside."""

from __future__ import annotations

import datetime
import json
from pathlib import Path


class Events:
    """A log that is added to; each line is on disk as soon as it is written."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, event: str, **facts: object) -> None:
        """Add an event with what there is to say of it, and the time in UTC."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": now, "event": event, **facts}, default=str)
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")
