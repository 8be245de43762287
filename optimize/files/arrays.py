"""Files of arrays (`.npz`), written in one step and read as what comes from elsewhere: nothing in them is run."""

from __future__ import annotations

import io
import stat
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimize.errors import RequestError, first_line
from optimize.files.putting import put_file

if TYPE_CHECKING:
    import numpy as np

DAMAGED = (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, RuntimeError)
"""What NumPy and zipfile raise for what is cut off, no archive, holds objects, is encrypted or packed otherwise."""


def put_arrays(path: Path, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Write arrays as one file; none leave no file, a former run's neither."""
    import numpy as np

    if not arrays:
        path.unlink(missing_ok=True)
        return
    stream = io.BytesIO()
    np.savez_compressed(stream, allow_pickle=False, **arrays)
    put_file(path, stream.getvalue())


def read_arrays(path: Path, *, most_bytes: int) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of a file by name, none where it is not there; refuses what unpacks to more than `most_bytes`.

    Raises RequestError.
    """
    import numpy as np

    if not path.exists():
        return {}
    if not stat.S_ISREG(path.stat().st_mode):
        raise unfit(path, "it is not a regular file")
    try:
        with zipfile.ZipFile(path) as packed:
            size = sum(each.file_size for each in packed.infolist())
        if size <= most_bytes:
            with np.load(path, allow_pickle=False) as file:
                return dict(file.items())
    except DAMAGED as error:
        raise unfit(path, first_line(error)) from error
    raise unfit(path, f"it unpacks to {size:,} bytes, and at most {most_bytes:,} are read")


def unfit(path: Path, reason: str) -> RequestError:
    """Build the refusal of a file that is not what a run writes."""
    return RequestError(f"{path}: cannot be read ({reason}); certify the run, or run it again")
