"""Commands over many models: `sweep` and `pick`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, Optional

import typer

from optimize.cli import verbosity
from optimize.cli.options import CacheOption, JsonOption, QuietOption, VerboseOption, cache_from
from optimize.cli.output import EXIT_CODES, print_json
from optimize.errors import RequestError, StageError, unknown_name
from optimize.request import read_share

if TYPE_CHECKING:
    from optimize.sweep.sweeping import Planned
    from optimize.swept import Swept

OUT = Path("reports/sweeps")
WORSE = (0, 4, 1, StageError.exit_code)
"""Exit codes, each worse than the one before."""
SHOWN_REASONS = 20


def sweep(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="YAML file with models, pipelines and settings.")],
    on: Annotated[
        Optional[str],
        typer.Option(
            "--on",
            metavar="ray[:ADDRESS]",
            help="Build and measure on Ray: `ray` on this machine alone, ray:auto or ray:HOST:PORT on the cluster that "
            "it is one of, ray://HOST:PORT on another.  [default: here, in processes]",
        ),
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", help="Builds at a time here; what is timed is alone.")] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a sweep that was interrupted.")] = False,
    retime: Annotated[
        bool, typer.Option("--retime", help="Go on with it, and measure again what a busy machine timed.")
    ] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Show the points and do nothing.")] = False,
    allow_failures: Annotated[
        bool, typer.Option("--allow-failures", help="Let points fail without failing the sweep.")
    ] = False,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FOLDER", help="Folder that the sweep's own folder goes into.")
    ] = OUT,
    cache: CacheOption = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Try many models by many pipelines, and certify the best of each model and target.

    Exit code 0: all that was certified passed; 1: one did not; 3: a point failed; 4: something is unverified.
    """
    from optimize.cli.board import board
    from optimize.cli.tables import show_sweep
    from optimize.sweep.pools import opener
    from optimize.sweep.sweeping import plan_sweep
    from optimize.sweep.sweeping import sweep as carry_out
    from optimize.swept import dump

    with board() as (watch, progress):
        place = cache_from(cache)
        planned = plan_sweep(file, out=out, cache=place, resume=resume or plan, retime=retime, progress=progress)
        if not plan:
            threads = planned.matrix.options.get("threads")
            opened, packed = opener(on, jobs=jobs, threads=threads, progress=progress)
            swept = carry_out(planned, opened, watch=watch, packed=packed)
    if plan:
        _show_plan(planned, as_json)
        return
    if as_json:
        print_json([dump(swept)])
    else:
        show_sweep(planned.folder, swept)
    _end(swept, allow_failures)


def _show_plan(planned: Planned, as_json: bool) -> None:
    points = [
        {
            "id": point.id,
            "model": point.model,
            "target": point.form.target,
            "pipeline": point.pipeline,
            "settings": dict(point.settings),
            "refused": planned.refused.get(point.id),
        }
        for point in planned.points
    ]
    if as_json:
        print_json([{"points": points}])
    elif not verbosity.is_quiet():
        from optimize.cli.tables import show_points

        show_points(planned)


def _end(swept: Swept, allow_failures: bool) -> NoReturn:
    """End with the worst of what came out: verdicts, points that failed unless that is allowed, what is left."""
    codes = [EXIT_CODES[each.verdict] for each in swept.trials if each.verdict is not None]
    if not swept.finished or not codes:
        codes.append(EXIT_CODES["unverified"])
    if not allow_failures and any(each.outcome == "failed" for each in swept.trials):
        codes.append(StageError.exit_code)
    raise typer.Exit(max(codes, key=WORSE.index))


def pick(
    sweep_folder: Annotated[Path, typer.Argument(metavar="SWEEP", help="Folder of a sweep.")],
    model: Annotated[Optional[str], typer.Option("--model", "-m", help="Of these models, by its name there.")] = None,
    target: Annotated[Optional[str], typer.Option("--target", "-t", help="For this target.")] = None,
    max_drop: Annotated[
        Optional[str], typer.Option("--max-drop", metavar="SHARE", help="Loses at most this share of the metric: 1%.")
    ] = None,
    min_speedup: Annotated[
        Optional[float], typer.Option("--min-speedup", help="Is at least so many times as fast as PyTorch FP32.")
    ] = None,
    max_size: Annotated[
        Optional[str], typer.Option("--max-size", metavar="SHARE", help="Has at most this share of FP32's size: 25%.")
    ] = None,
    prefer: Annotated[str, typer.Option("--prefer", help="latency, size or accuracy: what decides among the rest.")] = (
        "latency"
    ),
    cache: CacheOption = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Name the model of a sweep to publish, and certify it if it is not certified yet.

    It is chosen on tuning data. The exit code is that of its run's verdict, on data that nothing was chosen by.
    """
    from optimize.cli.progress import progress
    from optimize.cli.tables import show_pick
    from optimize.sweep.front import COSTS, Wanted
    from optimize.sweep.picking import pick as choose

    if prefer not in COSTS:
        raise unknown_name("--prefer", prefer, COSTS)
    wanted = Wanted(
        model=model,
        target=target,
        max_drop=None if max_drop is None else read_share(max_drop, "--max-drop"),
        min_speedup=min_speedup,
        max_size=None if max_size is None else read_share(max_size, "--max-size"),
        prefer=_known(prefer),
    )
    with progress() as shown:
        trial, folder = choose(sweep_folder, wanted, cache=cache_from(cache), progress=shown)
    if as_json:
        print_json([{"run": str(folder), **trial.model_dump(mode="json")}])
    else:
        show_pick(trial, folder)
    if trial.verdict is None:
        raise RequestError(f"{folder}: has no verdict; certify it with: optimize certify {folder}")
    raise typer.Exit(EXIT_CODES[trial.verdict])


def _known(prefer: str) -> Any:
    return prefer
