"""Hand finished runs on to whom the request names, beside their folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from optimize.ci.junit import write_junit
from optimize.manifest import Manifest


def deliver(runs: Sequence[tuple[Path, Manifest]], *, junit: Path | None) -> None:
    """Write the runs' limits to `junit`, where that is asked for; each run is its folder and manifest.

    The runs are kept whatever fails here.
    """
    if junit is not None:
        write_junit([manifest for _, manifest in runs], junit)
