"""How a run or a certification ends once its result is shown: it is handed on, and the verdict is the exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import typer

from optimize.ci import github
from optimize.ci.findings import Suite, limits_of
from optimize.ci.summary import summary
from optimize.cli.output import EXIT_CODES
from optimize.cli.verbosity import is_quiet
from optimize.delivering import deliver
from optimize.manifest import Manifest

WORSE = (0, 4, 1)
"""Verdicts' exit codes, each worse than the one before: what failed was proven to, what is unverified may be good."""


def finish(runs: Sequence[tuple[Path, Manifest]], *, junit: Path | None, track: str | None) -> NoReturn:
    """Hand on finished runs, as their folders and manifests, and end with the exit code of the worst verdict."""
    manifests = [manifest for _, manifest in runs]
    for manifest in manifests:
        tell_github(limits_of(manifest), summary(manifest))
    done = deliver(runs, junit=junit, track=track)
    if done and not is_quiet():
        print("\n".join(done), file=sys.stderr)
    raise typer.Exit(max((EXIT_CODES[each.verdict.outcome] for each in manifests), key=WORSE.index))


def tell_github(suite: Suite, text: str) -> None:
    """Annotate the job with what is not passed, and add the text to the step's summary, where GitHub runs this."""
    if github.is_github(os.environ):
        for line in github.workflow_commands(suite):
            print(line, file=sys.stderr)  # which GitHub reads as well: stdout may be JSON
    github.add_to_summary(text, os.environ)
