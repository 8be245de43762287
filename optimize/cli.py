"""The `optimize` command. The only module that prints, reads the environment and sets exit codes.

Results go to stdout (with `--json` the manifest alone), progress and errors to stderr. Heavy
modules are imported by the command that needs them, so that `--help` stays quick.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, Optional

import typer
import typer.exceptions

from optimize.errors import OptimizeError, RequestError

if TYPE_CHECKING:
    from optimize.plan import Options

EXIT_CODES = {"passed": 0, "failed": 1, "unverified": 4}
INTERRUPTED = 130

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Optimize and quantize DistilBERT checkpoints of any head, and prove what it cost and gained.",
)

TargetOption = Annotated[Optional[str], typer.Option(help="Where the model runs; see `optimize list`. [default: cpu]")]
HeadOption = Annotated[Optional[str], typer.Option(help="Task of the model, or 'all'. [default: the checkpoint's]")]
ModelOption = Annotated[str, typer.Option(help="Hub id, folder, or 'demo'.")]
RevisionOption = Annotated[Optional[str], typer.Option(help="Branch, tag or commit of a Hub id.")]
DataOption = Annotated[
    Optional[str], typer.Option(help="Hub id, folder, or 'demo'. [default: the demo's for the demo]")
]
DataConfigOption = Annotated[Optional[str], typer.Option(help="Configuration of a Hub data set, such as sst2 of glue.")]
DataRevisionOption = Annotated[Optional[str], typer.Option(help="Branch, tag or commit of a Hub data set.")]
ColumnsOption = Annotated[Optional[str], typer.Option(help="Columns by role: text=review,label=stars.")]
CertifyOnOption = Annotated[Optional[str], typer.Option(help="Split that judges. [default: validation, else test]")]
ExamplesOption = Annotated[int, typer.Option(help="Most examples to certify on.")]
CalibrationOption = Annotated[int, typer.Option(help="Examples that stages may calibrate on.")]
TuningOption = Annotated[int, typer.Option(help="Examples that stages may tune on.")]
TrainingOption = Annotated[int, typer.Option(help="Examples that stages may train on, where one does.")]
MaxTokensOption = Annotated[
    Optional[int], typer.Option(help="Cut texts to this many tokens. [default: the head's limit]")
]
ShapesOption = Annotated[str, typer.Option(help="Latency shapes BATCHxTOKENS; 'data' for lengths as they occur.")]
ThreadsOption = Annotated[Optional[int], typer.Option(help="Threads of a session. [default: all cores]")]
PipelineOption = Annotated[
    Optional[str],
    typer.Option(
        help="Shipped pipeline, a YAML file, or 'auto': try several, keep the fastest that meets the gates. "
        "[default: the target's]"
    ),
]
RuntimeOption = Annotated[
    Optional[str], typer.Option(help="Settings that the target runs with: hint=throughput,precision=bf16.")
]
DeviceOption = Annotated[Optional[str], typer.Option(help="Device of the target, such as GPU. [default: the target's]")]
BudgetOption = Annotated[Optional[float], typer.Option(help="Share of the encoder that a pruning pipeline keeps: 0.6.")]
FastestWithinOption = Annotated[
    Optional[str], typer.Option(help="Let a pruning pipeline find the smallest budget that loses no more: 1%.")
]
VocabularyOption = Annotated[
    Optional[str],
    typer.Option(metavar="FILE", help="Texts by which the vocabulary is pruned first: .txt, .jsonl, or a folder."),
]
BenchPipelineOption = Annotated[
    Optional[str], typer.Option(help="Shipped pipeline, or a YAML file. [default: the target's]")
]
SeedOption = Annotated[int, typer.Option(help="Seed of everything random.")]
OutOption = Annotated[Path, typer.Option(help="Folder that run folders go into.")]
CacheOption = Annotated[Optional[Path], typer.Option(help="Folder of cached stages. [default: the user's cache]")]
BuildOnlyOption = Annotated[bool, typer.Option("--build-only", help="Build without measuring; exit code 4.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")]

DEFAULT_SHAPES = "1x16,1x128,8x128,1x384,data"


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
        act(_options(locals()), as_json)


@app.command("list")
def list_names() -> None:
    """Targets, heads, stages with their parameters, and pipelines."""
    from optimize.terminal import show_tables

    show_tables()


@app.command()
def doctor() -> None:
    """This machine: CPU features, libraries, and which targets run here. Exit code 3 if none does."""
    from optimize.terminal import show_doctor

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
    from optimize.manifest import dump
    from optimize.run import check as certify
    from optimize.terminal import progress, show_run

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
    from optimize.publish import publish_folder

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
    from optimize.terminal import progress, show_bench

    options = _options(
        {"target": target, "pipeline": pipeline, "device": device, "runtime": runtime, "budget": budget}
        | {"shapes": shapes, "threads": threads, "cache": cache, "seed": seed}
    )
    with progress() as shown:
        found = measure(options, calibration=calibration, progress=shown)
    show_bench(found.measurements, found.calibration)


def _options(values: dict[str, Any]) -> Options:
    """Options from a command's parameters."""
    from dataclasses import fields

    from optimize.plan import Options

    columns = _pairs(values.pop("columns", None), "--columns: '{}' is not role=column; write for instance text=review")
    runtime = _pairs(values.pop("runtime", None), "--runtime: '{}' is not setting=value; write hint=throughput")
    shapes = tuple(shape.strip() for shape in str(values.pop("shapes")).split(",") if shape.strip())
    values["fastest_within"] = _share(values.get("fastest_within"), "--fastest-within")
    known = {field.name for field in fields(Options)}
    rest = {name: value for name, value in values.items() if name in known}
    return Options(columns=columns, runtime=runtime, shapes=shapes, **rest)


def _share(text: str | None, option: str) -> float | None:
    """`1%` or `0.01` as a number."""
    if text is None:
        return None
    number, percent = text.strip().removesuffix("%"), text.strip().endswith("%")
    try:
        return float(number) / (100 if percent else 1)
    except ValueError:
        raise RequestError(f"{option}: '{text}' is no share; write for instance 1% or 0.01") from None


def _pairs(text: object, refusal: str) -> dict[str, str]:
    """`a=b,c=d` as a mapping."""
    pairs = [pair.partition("=") for pair in str(text or "").split(",") if pair]
    if not all(name.strip() and value.strip() for name, _, value in pairs):
        raise RequestError(refusal.format(text))
    return {name.strip(): value.strip() for name, _, value in pairs}


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
    from optimize.manifest import dump
    from optimize.plan import make_plan
    from optimize.run import run
    from optimize.terminal import progress, show_overview, show_run

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
    from optimize.plan import make_plan
    from optimize.terminal import show_plan

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
