"""The `optimize` command: what runs, plans, certifies, reports, publishes and benchmarks, and the entry point.

Results go to stdout (with `--json` JSON alone), progress and errors to stderr. Heavy modules are imported by the
command that needs them, so that `--help` stays quick.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, Optional

import typer
import typer.core
import typer.exceptions

from optimize import __version__
from optimize.cli import (
    caching,
    commenting,
    comparing,
    inspecting,
    publishing,
    sweeping,
    tracking,
    tuning,
    using,
    verbosity,
)
from optimize.cli.ending import end
from optimize.cli.options import (
    CacheOption,
    JsonOption,
    JunitOption,
    PanelCommand,
    QuietOption,
    RunArgument,
    TrackOption,
    VerboseOption,
    cache_from,
    request_command,
)
from optimize.cli.output import print_json
from optimize.errors import RequestError, StageError
from optimize.machine.allowance import keep_to_quota

if TYPE_CHECKING:
    from optimize.bench import Benchmark
    from optimize.planning import Plan
    from optimize.request import Options

INTERRUPTED = 130  # 128 and the number of SIGINT, as shells have it
BENCH_OPTIONS = ("target", "pipeline", "settings", "runtime", "device", "budget", "seed", "shapes", "threads", "cache")
BENCH_SHAPES = ("1x16", "1x128", "8x128", "1x384")
"""Random weights come without data, so there are no lengths as they occur."""


class PassedOn(Exception):  # noqa: N818  (it is what holds an error)
    """A failure on its way past Typer, which ends some kinds with exit codes of its own, 1 among them."""

    def __init__(self, failure: Exception) -> None:
        self.failure = failure


class Commands(typer.core.TyperGroup):
    """All commands, whose failures come out as they are."""

    def invoke(self, ctx: Any) -> Any:
        """Do a command."""
        try:
            return super().invoke(ctx)
        except (OSError, EOFError) as error:
            raise PassedOn(error) from error
        except SystemExit as error:  # ours are `typer.Exit`
            raise StageError(
                f"a library ended the process with {error.code!r}; see where with --verbose, and report it"
            ) from error


app = typer.Typer(
    name="optimize",
    cls=Commands,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # Typer's help in colours imports rich, which takes as long as all the rest
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    help="Optimize and quantize DistilBERT checkpoints of any head, and prove what it cost and gained.",
)


def _show_version(asked: bool) -> None:
    if asked:
        print(f"optimize {__version__}")
        raise typer.Exit


@app.callback()
def show_help(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", "-V", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Show help where no command is given."""
    if context.invoked_subcommand is None:
        print(context.get_help())


def run(options: Options, *, as_json: bool) -> None:
    """Optimize a model, measure it against FP32, and judge it.

    Exit code 0: all limits are met; 1: one is not; 4: built, but not verified.
    """
    from optimize.cli.finishing import finish
    from optimize.cli.progress import progress
    from optimize.cli.tables import show_overview, show_run
    from optimize.manifest import dump
    from optimize.running import run

    done = []
    for made in make_plans(options):
        with progress() as shown:
            done.append(run(made, progress=shown))
        if not as_json:
            show_run(*done[-1])
    manifests = [manifest for _, manifest in done]
    if as_json:
        print_json(map(dump, manifests))
    elif len(manifests) > 1 and not verbosity.is_quiet():
        show_overview(manifests)
    finish(done, junit=options.junit, track=options.track)


def plan(options: Options, *, as_json: bool) -> None:
    """Check a request and show what `run` would do."""
    from optimize.cli.output import dump_request
    from optimize.cli.tables import show_plan

    plans = make_plans(options)
    if as_json:
        print_json(dump_request(made.request) for made in plans)
    elif not verbosity.is_quiet():
        for made in plans:
            show_plan(made)


def make_plans(options: Options) -> list[Plan]:
    """One plan a head. All are checked before the first is carried out: a refusal after an hour would be late."""
    from optimize.cli.progress import progress
    from optimize.planning import make_plan

    with progress() as shown:
        return [make_plan(each, progress=shown) for each in each_head(options)]


def each_head(options: Options) -> list[Options]:
    """One set of options a head; only the demo has all heads."""
    from dataclasses import replace

    from optimize.heads import HEADS

    if options.head != "all":
        return [options]
    if options.model != "demo":
        raise RequestError("--head: 'all' needs --model demo; a checkpoint has one head")
    return [replace(options, head=name) for name in HEADS]


def certify(
    run_folder: RunArgument,
    model: Annotated[
        Optional[str], typer.Option("--model", "-m", metavar="MODEL", help="Where the checkpoint lies on this machine.")
    ] = None,
    data: Annotated[
        Optional[str], typer.Option("--data", "-d", metavar="DATA", help="Where the data lie on this machine.")
    ] = None,
    head: Annotated[
        Optional[str],
        typer.Option("--head", metavar="FILE:NAME", help="Head of your own that it was judged with; its code is run."),
    ] = None,
    cache: CacheOption = None,
    junit: JunitOption = None,
    track: TrackOption = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measure and judge a finished run again on this machine.

    Nothing is built again: the model of the run folder is measured.
    """
    from optimize.certifying import certify
    from optimize.cli.finishing import finish
    from optimize.cli.progress import progress
    from optimize.cli.tables import show_run
    from optimize.manifest import dump
    from optimize.refusals import check_delivery

    check_delivery(junit, track)
    with progress() as shown:
        folder, manifest = certify(
            run_folder, model=model, data=data, head=head, cache=cache_from(cache), progress=shown
        )
    if as_json:
        print_json([dump(manifest)])
    else:
        show_run(folder, manifest)
    finish([(folder, manifest)], junit=junit, track=track)


def check(
    run_folder: RunArgument,
    model: Annotated[Optional[str], typer.Option("--model", "-m")] = None,
    data: Annotated[Optional[str], typer.Option("--data", "-d")] = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """The former name of `certify`."""
    # On stderr, so that what parses `check --json` goes on working.
    print("optimize: 'check' is called 'certify' now and goes with the next version; write that", file=sys.stderr)
    certify(run_folder, model=model, data=data, cache=cache, as_json=as_json)


def report(
    run_folder: RunArgument,
    card: Annotated[bool, typer.Option("--card", help="Write the model card of a publication, too: card.md.")] = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write a finished run's report and pictures again."""
    from optimize.publishing.rendering import render_again

    written = list(map(str, render_again(run_folder, card=card)))
    if as_json:
        print_json([{"written": written}])
    elif not verbosity.is_quiet():
        print("\n".join(written))


def bench(
    options: Options, *, as_json: bool, calibration: bool, peers: bool, limits: bool, picture: Path | None
) -> None:
    """Measure latency and size with random weights.

    The geometry is distilbert-base's: 6 layers, 768 wide. How fast a model runs does not depend on what its weights
    say; accuracy means nothing here and is not measured.
    """
    from dataclasses import asdict

    from optimize.bench import bench as measure
    from optimize.cli.progress import progress
    from optimize.cli.tables import show_bench
    from optimize.refusals import check_place

    if picture is not None:
        check_place(picture.parent, "--picture")
        if picture.is_dir():
            raise RequestError(f"--picture: {picture} is a folder; name a file, such as {picture / 'bench.png'}")
    with progress() as shown:
        found = measure(options, calibration=calibration, progress=shown, peers=peers, limits=limits)
    if as_json:
        measurements = [each.model_dump(mode="json") for each in found.measurements]
        lists = {name: [asdict(each) for each in getattr(found, name)] for name in ("calibration", "peaks")}
        rest = {"operations": dict(found.operations), "left_out": dict(found.left_out)}
        print_json([{"measurements": measurements, **lists, **rest}])
    else:
        show_bench(found)
    if picture is not None:  # last: what was measured is printed, whatever becomes of its picture
        draw_bench(found, picture)


def draw_bench(found: Benchmark, file: Path) -> None:
    """Write a PNG of the models' speed-ups."""
    from optimize.report.pictures.speedups import draw_speedups

    content = draw_speedups(found.measurements, title="Times as fast as PyTorch FP32, distilbert-base's geometry")
    if content is None:
        raise StageError(f"{file}: no shape was timed, so there is nothing to draw; name another with --shapes")
    file.write_bytes(content)


CalibrationOption = Annotated[
    bool,
    typer.Option(
        help="Compare what calibrators need in memory and time; takes a few minutes.", rich_help_panel="Measurement"
    ),
]
PeersOption = Annotated[
    bool,
    typer.Option(
        "--peers",
        help="Measure what you might pick in its place, in the same rounds: PyTorch in BF16 and INT8, and INT8 as ONNX "
        "Runtime and NNCF make it.",
        rich_help_panel="Measurement",
    ),
]
LimitsOption = Annotated[
    bool,
    typer.Option(
        "--limits",
        help="Measure how fast this machine multiplies matrices, and how near to that each model comes.",
        rich_help_panel="Measurement",
    ),
]
PictureOption = Annotated[
    Path | None,
    typer.Option("--picture", help="Also draw the models' speed-ups, as a PNG.", rich_help_panel="Output"),
]
COMMANDS: tuple[Callable[..., None], ...] = (
    request_command(run),
    request_command(plan),
    sweeping.sweep,
    sweeping.pick,
    request_command(
        tuning.tune,
        tuning.OPTIONS,
        tuning.DEFAULTS,
        trials=(tuning.TrialsOption, None),
        on=(tuning.OnOption, None),
    ),
    certify,
    report,
    publishing.publish,
    publishing.verify,
    using.predict,
    using.serve,
    comparing.compare,
    comparing.accept,
    comparing.regress,
    commenting.comment,
    tracking.track,
    request_command(
        bench,
        BENCH_OPTIONS,
        {"shapes": BENCH_SHAPES},
        calibration=(CalibrationOption, True),
        peers=(PeersOption, False),
        limits=(LimitsOption, False),
        picture=(PictureOption, None),
    ),
    inspecting.list_names,
    inspecting.show,
    inspecting.copy,
    inspecting.doctor,
)
"""In the order in which help shows them."""
for command in COMMANDS:
    app.command(command.__name__.removesuffix("_names"), cls=PanelCommand)(command)
app.command(hidden=True, cls=PanelCommand)(check)
app.add_typer(caching.app, name="cache")


def run_command() -> int | None:
    """Do what the command line says; the exit code, or None where what was printed is the result."""
    keep_to_quota()
    try:
        # Standalone, Typer would print errors itself, over several lines and in its own words.
        code: int | None = app(prog_name="optimize", standalone_mode=False)
    except typer.exceptions.TyperException as error:
        raise RequestError(error.format_message()) from error
    except PassedOn as passed:
        raise passed.failure from None
    if code == INTERRUPTED:  # typer 0.29 makes this exit code of Ctrl-C, and says nothing
        raise KeyboardInterrupt
    return code


def main() -> NoReturn:
    """The command, for who has imported this module already."""
    end(run_command)
