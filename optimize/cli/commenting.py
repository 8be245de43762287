"""`optimize comment`: a run's summary on a pull request."""

from __future__ import annotations

import os
from typing import Annotated, Optional

import typer

from optimize.cli import verbosity
from optimize.cli.options import JsonOption, QuietOption, RunArgument, VerboseOption
from optimize.cli.output import print_json


def comment(
    run_folder: RunArgument,
    number: Annotated[
        int, typer.Option("--pull-request", metavar="NUMBER", min=1, help="Number of the pull request on GitHub.")
    ],
    repository: Annotated[
        Optional[str],
        typer.Option(
            "--repository", metavar="OWNER/NAME", help="Its repository.  [default: what GITHUB_REPOSITORY names]"
        ),
    ] = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Comment on a pull request: verdict, limits, models of a finished run, and what `regress` said of it.

    A later run of the same head, target and pipeline updates its comment. The token is GITHUB_TOKEN's.
    """
    from optimize.ci.comments import marker_of, pull_request, put_comment
    from optimize.ci.summary import summary
    from optimize.cli.progress import progress
    from optimize.compared import read_regression
    from optimize.finished import as_stated, read_run

    place = pull_request(repository or os.environ.get("GITHUB_REPOSITORY"), number, os.environ)
    manifest = read_run(run_folder)
    with as_stated(run_folder):
        marker, text = marker_of(manifest), summary(manifest, read_regression(run_folder, manifest))
    with progress() as shown:
        address = put_comment(marker, text, place, progress=shown)
    if as_json:
        print_json([{"comment": address}])
    elif not verbosity.is_quiet():
        print(address)
