"""How a run or a certification ends once its result is shown: it is handed on, and the verdict is the exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import typer

from optimize.ci import github
from optimize.cli.verbosity import is_quiet
from optimize.delivering import deliver
from optimize.manifest import Manifest

EXIT_CODES = {"passed": 0, "failed": 1, "unverified": 4}
WORSE = (0, 4, 1)
"""Verdicts' exit codes, each worse than the one before: what failed was proven to, what is unverified may be good."""


def finish(runs: Sequence[tuple[Path, Manifest]], *, junit: Path | None, track: str | None) -> NoReturn:
    """Hand on finished runs, as their folders and manifests, and end with the exit code of the worst verdict."""
    manifests = [manifest for _, manifest in runs]
    for manifest in manifests:
        for line in github.workflow_commands(manifest) if github.is_github(os.environ) else ():
            print(line, file=sys.stderr)  # which GitHub reads as well: stdout may be JSON
        github.add_to_summary(manifest, os.environ)
    done = deliver(runs, junit=junit, track=track)
    if done and not is_quiet():
        print("\n".join(done), file=sys.stderr)
    raise typer.Exit(max((EXIT_CODES[each.verdict.outcome] for each in manifests), key=WORSE.index))
