"""Commands that hold finished runs against each other: `compare`, `accept`, `regress`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Optional

import typer

from optimize.cli import verbosity
from optimize.cli.options import JsonOption, QuietOption, RunArgument, VerboseOption
from optimize.cli.output import EXIT_CODES, print_json
from optimize.errors import RequestError
from optimize.request import read_share

BaselinesOption = Annotated[
    Path, typer.Option("--baselines", "-b", metavar="FOLDER", help="Folder of accepted runs, one a question.")
]
NameOption = Annotated[
    Optional[str],
    typer.Option(
        "--name", metavar="NAME", help="Name of the baseline.  [default: model, head, target and pipeline of the run]"
    ),
]
BASELINES = Path("reports/accepted")
ALPHA, SIZE, DRIFT, LATENCY = "5%", "1%", "25%", "10%"


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN…", help="Folders of finished runs.")],
    out: Annotated[
        Optional[Path], typer.Option("--out", "-o", metavar="FILE", help="Write a Markdown page, too.")
    ] = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Show finished runs side by side, the first beside each of the others.

    Runs that judged the same data are paired example by example. What cannot be compared says why.
    """
    from optimize.cli.tables import show_comparison
    from optimize.compared import dump
    from optimize.comparing.side_by_side import compare_runs, write_comparison

    found = compare_runs(runs)
    if out is not None:
        write_comparison(found, out)
    if as_json:
        print_json([dump(found)])
    elif not verbosity.is_quiet():
        show_comparison(found)


def accept(
    run_folder: RunArgument,
    baselines: BaselinesOption = BASELINES,
    name: NameOption = None,
    any_verdict: Annotated[
        bool, typer.Option("--any-verdict", help="Accept a run that did not pass its limits, too.")
    ] = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Accept a run as the baseline that later ones are held against.

    Its manifest and what each example scored are kept, without the model, in the place of the last accepted run of the
    same model, head, target and pipeline.
    """
    from optimize.comparing.baselines import accept

    place = accept(run_folder, baselines, name=name, any_verdict=any_verdict)
    if as_json:
        print_json([{"baseline": str(place)}])
    elif not verbosity.is_quiet():
        print(f"accepted as {place}")


def regress(
    run_folder: RunArgument,
    baselines: BaselinesOption = BASELINES,
    name: NameOption = None,
    alpha: Annotated[
        str,
        typer.Option("--alpha", metavar="SHARE", help="How often the tests of answers may see a loss that is none."),
    ] = ALPHA,
    size: Annotated[
        str, typer.Option("--size-tolerance", metavar="SHARE", help="What the model file may grow by.")
    ] = SIZE,
    drift: Annotated[
        str, typer.Option("--drift-tolerance", metavar="SHARE", help="What each number of the drift may grow by.")
    ] = DRIFT,
    latency: Annotated[
        str, typer.Option("--latency-tolerance", metavar="SHARE", help="What the median latency may grow by.")
    ] = LATENCY,
    timed: Annotated[
        bool, typer.Option("--latency/--no-latency", help="Compare latency; leave it out where no machine is quiet.")
    ] = True,
    junit: Annotated[
        Optional[Path], typer.Option("--junit", metavar="FILE", help="Write what was compared as JUnit XML, too.")
    ] = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Say what got worse since the last accepted run, and at which stage.

    Exit code 0: nothing did; 1: something did; 4: something could not be compared.
    """
    from optimize.ci.findings import regressions_of
    from optimize.ci.junit import write_junit
    from optimize.ci.summary import worse
    from optimize.cli.finishing import tell_github
    from optimize.cli.tables import show_regression
    from optimize.compared import dump
    from optimize.comparing.regressions import Tolerances, regress
    from optimize.finished import read_run
    from optimize.refusals import check_delivery

    check_delivery(junit, track=None)
    tolerances = Tolerances(
        alpha=_alpha(alpha),
        size=_tolerance(size, "--size-tolerance"),
        drift=_tolerance(drift, "--drift-tolerance"),
        latency=_tolerance(latency, "--latency-tolerance") if timed else None,
    )
    found = regress(run_folder, baselines, name=name, tolerances=tolerances)
    if as_json:
        print_json([dump(found)])
    else:
        show_regression(run_folder, found)
    suite = regressions_of(read_run(run_folder), found)
    tell_github(suite, worse(found))
    if junit is not None:
        write_junit([suite], junit)
    raise typer.Exit(EXIT_CODES[found.outcome])


def _tolerance(text: str, flag: str) -> float:
    share = read_share(text, flag)
    if not (math.isfinite(share) and share >= 0):
        raise RequestError(f"{flag}: '{text}' is no tolerance; write for instance 10% or 0.1")
    return share


def _alpha(text: str) -> float:
    share = read_share(text, "--alpha")
    if not 0 < share < 1:
        raise RequestError(f"--alpha: '{text}' is no share of tests; write for instance 5% or 0.05")
    return share
