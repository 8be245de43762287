"""The `optimize` command. The only module that prints, reads the environment and sets exit codes.

Results go to stdout (with `--json` the manifest alone), progress and errors to stderr. Heavy
modules are imported by the command that needs them, so that `--help` stays quick.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, Optional

import typer
import typer.exceptions

from optimize.cli.options import (
    DEFAULT_SHAPES,
    BenchPipelineOption,
    BudgetOption,
    BuildOnlyOption,
    CacheOption,
    CalibrationOption,
    CertifyOnOption,
    ColumnsOption,
    DataConfigOption,
    DataOption,
    DataRevisionOption,
    DeviceOption,
    ExamplesOption,
    FastestWithinOption,
    HeadOption,
    JsonOption,
    MaxTokensOption,
    ModelOption,
    OutOption,
    PipelineOption,
    RevisionOption,
    RuntimeOption,
    SeedOption,
    ShapesOption,
    TargetOption,
    ThreadsOption,
    TrainingOption,
    TuningOption,
    VocabularyOption,
    options_from,
)
from optimize.errors import OptimizeError, RequestError

if TYPE_CHECKING:
    from optimize.planning import Options

EXIT_CODES = {"passed": 0, "failed": 1, "unverified": 4}
INTERRUPTED = 130

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Optimize and quantize DistilBERT checkpoints of any head, and prove what it cost and gained.",
)


def _add_request_command(name: str, summary: str, act: Callable[[Options, bool], None]) -> None:
    """Add a command that takes a whole request; `run` and `plan` differ only in what they do with it."""

    @app.command(name, help=summary)
    def command(
        target: TargetOption = None,
        head: HeadOption = None,
        model: ModelOption = "demo",
        revision: RevisionOption = None,
        data: DataOption = None,
        data_config: DataConfigOption = None,
        data_revision: DataRevisionOption = None,
        columns: ColumnsOption = None,
        certify_on: CertifyOnOption = None,
        examples: ExamplesOption = 4000,
        calibration_examples: CalibrationOption = 256,
        tuning_examples: TuningOption = 512,
        training_examples: TrainingOption = 4000,
        max_tokens: MaxTokensOption = None,
        shapes: ShapesOption = DEFAULT_SHAPES,
        threads: ThreadsOption = None,
        pipeline: PipelineOption = None,
        device: DeviceOption = None,
        runtime: RuntimeOption = None,
        budget: BudgetOption = None,
        fastest_within: FastestWithinOption = None,
        vocabulary: VocabularyOption = None,
        seed: SeedOption = 0,
        out: OutOption = Path("reports/runs"),
        cache: CacheOption = None,
        build_only: BuildOnlyOption = False,
        as_json: JsonOption = False,
    ) -> None:
        act(options_from(locals()), as_json)


@app.command("list")
def list_names() -> None:
    """Targets, heads, stages with their parameters, and pipelines."""
    from optimize.cli.tables import show_tables

    show_tables()


@app.command()
def doctor() -> None:
    """This machine: CPU features, libraries, and which targets run here. Exit code 3 if none does."""
    from optimize.cli.tables import show_doctor

    if not show_doctor():
        raise typer.Exit(3)


@app.command()
def check(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    model: Annotated[Optional[str], typer.Option(help="Where the FP32 checkpoint lies on this machine.")] = None,
    data: Annotated[Optional[str], typer.Option(help="Where the data lie on this machine.")] = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure and judge a finished run's model again on this machine, without rebuilding it."""
    from optimize.certifying import certify
    from optimize.cli.progress import progress
    from optimize.cli.tables import show_run
    from optimize.manifest import dump

    with progress() as shown:
        folder, manifest = certify(run_folder, model=model, data=data, cache=cache, progress=shown)
    if as_json:
        _print_json([dump(manifest)])
    else:
        show_run(folder, manifest)
    raise typer.Exit(EXIT_CODES[manifest.verdict.outcome])


@app.command()
def publish(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    destination: Annotated[Path, typer.Argument(metavar="DEST", help="Folder to write; must be new or empty.")],
) -> None:
    """Write a passed run as a folder to hand on: model, tokenizer, model card, manifest, checksums."""
    from optimize.publishing import publish_folder

    publish_folder(run_folder, destination)
    print(f"published to {destination}")


@app.command()
def bench(
    target: TargetOption = None,
    pipeline: BenchPipelineOption = None,
    device: DeviceOption = None,
    runtime: RuntimeOption = None,
    budget: BudgetOption = None,
    shapes: ShapesOption = "1x16,1x128,8x128,1x384",
    threads: ThreadsOption = None,
    cache: CacheOption = None,
    seed: SeedOption = 0,
    calibration: Annotated[
        bool, typer.Option(help="Compare what calibrators need in memory and time; takes a few minutes.")
    ] = True,
) -> None:
    """Latency, size and memory at distilbert-base's geometry (6 layers, 768 wide) with random weights."""
    from optimize.bench import bench as measure
    from optimize.cli.progress import progress
    from optimize.cli.tables import show_bench

    options = options_from(
        {"target": target, "pipeline": pipeline, "device": device, "runtime": runtime, "budget": budget}
        | {"shapes": shapes, "threads": threads, "cache": cache, "seed": seed}
    )
    with progress() as shown:
        found = measure(options, calibration=calibration, progress=shown)
    show_bench(found.measurements, found.calibration)


def _each_head(options: Options) -> list[Options]:
    """One set of options a head; only the demo has all heads."""
    from dataclasses import replace

    from optimize.heads import HEADS

    if options.head != "all":
        return [options]
    if options.model != "demo":
        raise RequestError("--head: 'all' needs --model demo; a checkpoint has one head")
    return [replace(options, head=name) for name in HEADS]


def _run(options: Options, as_json: bool) -> None:
    """Plan all heads, run each, show each verdict, and exit with the worst."""
    from optimize.cli.progress import progress
    from optimize.cli.tables import show_overview, show_run
    from optimize.manifest import dump
    from optimize.planning import make_plan
    from optimize.running import run

    plans = [make_plan(each) for each in _each_head(options)]
    manifests = []
    for made in plans:
        with progress() as shown:
            folder, manifest = run(made, progress=shown)
        manifests.append(manifest)
        if not as_json:
            show_run(folder, manifest)
    if as_json:
        _print_json([dump(manifest) for manifest in manifests])
    elif len(manifests) > 1:
        show_overview(manifests)
    raise typer.Exit(max((EXIT_CODES[manifest.verdict.outcome] for manifest in manifests), key=(0, 4, 1).index))


def _plan(options: Options, as_json: bool) -> None:
    from optimize.cli.tables import show_plan
    from optimize.planning import make_plan

    plans = [make_plan(each) for each in _each_head(options)]
    if as_json:
        _print_json([made.request.model_dump_json(indent=2) for made in plans])
        return
    for made in plans:
        show_plan(made)


_add_request_command(
    "run", "Optimize a model, measure it against FP32, judge it. Exit code 0: all gates passed; 1: one failed.", _run
)
_add_request_command("plan", "Check a request and show what `run` would do, without doing it.", _plan)


def _print_json(documents: list[str]) -> None:
    """One document as it is, several as a JSON array."""
    texts = [document.strip() for document in documents]
    print(texts[0] if len(texts) == 1 else "[" + ",\n".join(texts) + "]")


def main() -> NoReturn:
    """Entry point: an error of ours becomes one line and its exit code."""
    try:
        code = app(prog_name="optimize", standalone_mode=False) or 0
        if code == INTERRUPTED:  # typer 0.29 makes this exit code of Ctrl-C, and says nothing
            raise KeyboardInterrupt
        sys.exit(code)
    except OptimizeError as error:
        _fail(str(error), error.exit_code)
    except typer.exceptions.TyperException as error:
        _fail(error.format_message(), 2)
    except (KeyboardInterrupt, typer.Abort):
        _fail("interrupted; finished stages are kept", INTERRUPTED)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror or error}; free space or mend permissions, then run again", 3)


def _fail(message: str, code: int) -> NoReturn:
    print("optimize: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(code)
