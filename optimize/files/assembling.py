"""Folders for users that are there whole or not at all: run folders and publications.

What killed processes left beside them goes when the next one is assembled.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from optimize.files.leftovers import owned_partial, sweep


@contextmanager
def assembled(parent: Path, name: str) -> Iterator[Path]:
    """An empty folder on the disk of `parent`, to be filled and renamed into place. Where the disk fails, it is named.

    Raises OSError with a path, whatever was being written.
    """
    sweep(parent)
    try:
        with owned_partial(parent, name) as partial:
            yield partial
    except shutil.Error:
        raise  # says which of its files
    except OSError as error:
        # What writes archives and pictures does not say where.
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(parent)) from error
