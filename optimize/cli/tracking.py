"""`optimize track`: finished runs recorded in a tracker, as `run --track` does at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from optimize.cli import verbosity
from optimize.cli.options import JsonOption, QuietOption, VerboseOption
from optimize.cli.output import print_json


def track(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Folders of finished runs.")],
    to: Annotated[
        str,
        typer.Option(
            "--to", metavar="TRACKER[:URI]", help="`mlflow`, or mlflow:URI for a server or store, as --track takes it."
        ),
    ],
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Record finished runs in a tracker.

    Each has to come out of its own measurements as it says, and its model has to be the one that was measured.
    """
    from optimize.delivering import track_runs

    done = []
    for folder, where in track_runs(runs, to):
        done.append({"run": str(folder), "tracked": where})
        if not (as_json or verbosity.is_quiet()):
            print(f"{folder}: {where}")
    if as_json:
        print_json(done)
