"""Files of a run folder, written again while others may read them."""

from __future__ import annotations

import errno
import os
from pathlib import Path


def put_file(path: Path, content: bytes) -> None:
    """Write a file in one step: readers see all of it or none.

    What lies there already is replaced: a link is not followed, nor does anybody have to read from a pipe.
    """
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        with partial.open("xb") as stream:
            stream.write(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def raise_if_full(error: BaseException | None) -> None:
    """Raise a full disk as the OSError it is, and not as a fault of the data; libraries wrap it."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise OSError(error.errno, error.strerror)
        error = error.__cause__ or error.__context__
