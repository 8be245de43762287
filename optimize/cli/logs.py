"""Tracebacks of what nobody foresaw, each in a file of its own, for who reports it."""

from __future__ import annotations

import contextlib
import os
import platform
import shlex
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from optimize.data.urls import redacted

NAME = "distilbert-optimize"


def write_log(error: BaseException) -> Path | None:
    """Write what a report needs into the first folder that takes it; None where none does."""
    text = redacted("".join([*_circumstances(), "\n", *traceback.format_exception(error)]))
    for folder in _folders():
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            # Nobody can know the name before: the folder may be one that others write to.
            file, name = tempfile.mkstemp(prefix=time.strftime("error-%Y%m%d-%H%M%S-"), suffix=".log", dir=folder)
            os.close(file)
            Path(name).write_text(text, encoding="utf-8", errors="backslashreplace")
            return Path(name)
    return None


def _circumstances() -> Iterator[str]:
    from optimize import __version__

    yield f"{NAME} {__version__}, Python {platform.python_version()}, {platform.platform()}\n"
    yield f"{shlex.join(sys.argv)}\n"


def _folders() -> Iterator[Path]:
    """The user's folder for logs, then the system's for what is temporary."""
    with contextlib.suppress(Exception):  # this reports failures, so none of its own may come in between
        import platformdirs

        folder = platformdirs.user_log_path(NAME, appauthor=False)
        # Where there is no home, "~" stays as it is, and would be a folder here.
        if folder.is_absolute():
            yield folder
    with contextlib.suppress(OSError):
        yield Path(tempfile.gettempdir())
