"""What a user may ask for: every option declared once, with its type, default, bounds and meaning.

From the fields of `Asked` and `Options` come the command line and its reference, the Python API, the request that a
manifest keeps, and the command that asks for it again. They are standard dataclasses, since `optimize --help` must not
wait for pydantic; as part of a manifest pydantic validates them all the same.
"""

from __future__ import annotations

import errno
import shlex
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from optimize.errors import RequestError, brief

DEMO = "demo"
DEFAULT_SHAPES = ("1x16", "1x128", "8x128", "1x384", "data")
Panel = Literal["Model", "Data", "Pipeline", "Measurement", "Output"]
Reads = Literal["first token", "all tokens", "pooled tokens"]
"""What a head reads of the last layer; outputs have an axis of tokens where it is "all tokens"."""
Read = Callable[[Any, str], object]
"""What makes a value of the words on the command line; the flag begins its refusals."""


@dataclass(frozen=True)
class Option:
    """What there is to say of an option besides its name, type and default.

    `otherwise` says what None stands for. `least` is the lowest value of a number. `read` and `write` turn words of the
    command line into a value and back, where the type alone does not say how; a `repeated` option reads a list of them.
    `sets` names the parameter that the option is a shorthand of, as `--set` would. `kept` is what the field of a
    manifest means, where that is not what was asked for but what came of it.
    """

    meaning: str
    panel: Panel
    short: str | None = None
    flag: str | None = None
    metavar: str | None = None
    otherwise: str | None = None
    least: int | None = None
    read: Read | None = None
    write: Callable[[Any], str] = str
    repeated: bool = False
    sets: str | None = None
    kept: str | None = None


def read_shapes(text: str, _: str) -> tuple[str, ...]:
    """`1x16,data` as a tuple."""
    return tuple(shape.strip() for shape in text.split(",") if shape.strip())


def read_share(text: str, flag: str) -> float:
    """`1%` or `0.01` as a number."""
    number, percent = text.strip().removesuffix("%"), text.strip().endswith("%")
    try:
        return float(number) / (100 if percent else 1)
    except ValueError:
        raise RequestError(f"{flag}: '{text}' is not a share; write for instance 1% or 0.01") from None


def read_columns(text: str, flag: str) -> dict[str, str]:
    """`text=review,label=stars` as a mapping."""
    return _pairs(text, flag, "role=column; write for instance text=review")


def read_runtime(text: str, flag: str) -> dict[str, str]:
    """`hint=throughput,precision=bf16` as a mapping."""
    return _pairs(text, flag, "setting=value; write for instance hint=throughput")


def _pairs(text: str, flag: str, form: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in text.split(","):
        name, _, value = (part.strip() for part in pair.partition("="))
        if not (name and value):
            raise RequestError(f"{flag}: '{brief(text)}' is not {form}")
        if name in found:
            raise RequestError(f"{flag}: '{brief(name)}' is given twice; leave one out")
        found[name] = value
    return found


def user_path(text: str, flag: str) -> Path:
    """A path as the user wrote it, with `~` and `~name` for homes; refuses one that no file can have."""
    if not text:  # which Python takes for the current folder
        raise RequestError(f"{flag}: is empty; name a path, or leave it out")
    try:
        path = Path(text).expanduser()
        path.lstat()
    except RuntimeError as error:
        raise RequestError(f"{flag}: '{brief(text)}' is in no known user's home; write the path out") from error
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            raise RequestError(f"{flag}: '{brief(text)}' is not a path ({error.strerror}); name another") from error
    except ValueError as error:  # of a zero byte, which only a caller in Python can give
        raise RequestError(f"{flag}: '{brief(text)}' is not a path ({error}); name another") from error
    return path


def read_cache(text: str, flag: str) -> Path | str:
    """A folder as a path, and an address as it is."""
    return text if "://" in text else user_path(text, flag)


def read_settings(texts: Sequence[str], flag: str) -> dict[str, object]:
    """`quantize_static.exclude=[a, b]` and its like as a mapping; values are as YAML would have them."""
    from optimize.files.small import parse_yaml

    found: dict[str, object] = {}
    for text in texts:
        name, _, value = text.partition("=")
        owner, _, parameter = name.strip().partition(".")
        if not (owner and parameter and value.strip()):
            raise RequestError(
                f"{flag}: '{brief(text)}' is not stage.parameter=value; write for instance "
                "quantize_static.method=percentile"
            )
        if name.strip() in found:
            raise RequestError(f"{flag}: sets {name.strip()} twice; leave one out")
        try:
            found[name.strip()] = parse_yaml(value)
        except ValueError as error:
            raise RequestError(
                f"{flag}: '{brief(value)}' is not YAML ({error}); write it as in a pipeline's file"
            ) from error
    return found


def write_pairs(values: Mapping[str, object]) -> str:
    """What `read_columns` and `read_runtime` read; settings that are None or empty are left out."""
    return ",".join(f"{name}={_word(value)}" for name, value in values.items() if value not in (None, [], ()))


def _word(value: object) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))  # a comma would begin the next setting
    return str(value).lower() if isinstance(value, bool) else str(value)


def write_setting(value: object) -> str:
    """A value as YAML has it, on one line."""
    import yaml

    return (
        str(yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000))
        .removesuffix("\n")
        .removesuffix("\n...")
    )


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The options that a manifest keeps; None means: choose sensibly."""

    model: Annotated[
        str, Option("Checkpoint to optimize: a Hub id, a folder, or `demo`.", "Model", short="-m", metavar="MODEL")
    ] = DEMO
    revision: Annotated[
        str | None,
        Option(
            "Branch, tag or commit of a model on the Hub.",
            "Model",
            kept="Commit of a model on the Hub; null for a folder and the demo.",
        ),
    ] = None
    head: Annotated[
        str | None,
        Option(
            "What the model is for, such as text-classification; `all` tries every head of the demo. FILE.py:NAME is a "
            "head of your own, whose code is run.",
            "Model",
            otherwise="what the checkpoint's config says",
            kept="What the model is for.",
        ),
    ] = None
    data: Annotated[
        str | None,
        Option(
            "Data to calibrate on and to judge by: a Hub id, a folder, a file, an address, or `demo`.",
            "Data",
            short="-d",
            metavar="DATA",
            otherwise="the demo's for the demo; else it has to be given",
        ),
    ] = None
    data_config: Annotated[
        str | None,
        Option("Configuration of a data set, such as sst2 of glue: on the Hub, or a folder in a folder.", "Data"),
    ] = None
    data_revision: Annotated[
        str | None,
        Option(
            "Branch, tag or commit of a data set on the Hub.",
            "Data",
            kept="Commit of a data set on the Hub; null for any other.",
        ),
    ] = None
    columns: Annotated[
        Mapping[str, str],
        Option(
            "Columns by the role they play: text=review,label=stars.",
            "Data",
            metavar="ROLE=COLUMN,…",
            otherwise="by their usual names",
            read=read_columns,
            write=write_pairs,
        ),
    ] = field(default_factory=dict)
    certify_on: Annotated[
        str | None, Option("Split that judges.", "Data", metavar="SPLIT", otherwise="validation, else test")
    ] = None
    examples: Annotated[int, Option("Most examples to judge by.", "Data", least=1)] = 4000
    calibration_examples: Annotated[int, Option("Most examples that stages calibrate on.", "Data", least=1)] = 256
    tuning_examples: Annotated[int, Option("Most examples that stages tune on.", "Data", least=0)] = 512
    training_examples: Annotated[
        int,
        Option(
            "Most examples that stages train on, where one does.",
            "Data",
            least=1,
            kept="Most examples that stages train on; 0 where none does.",
        ),
    ] = 4000
    max_unusable: Annotated[
        float,
        Option(
            "Largest share of the rows drawn that may be left out because they cannot be used, such as 1%; "
            "the run says which and why.",
            "Data",
            metavar="SHARE",
            read=read_share,
        ),
    ] = 0.01
    max_tokens: Annotated[
        int | None,
        # Fewer than eight leave no text between the special tokens of a pair.
        Option("Tokens that texts are cut to.", "Data", least=8, otherwise="what head and model take"),
    ] = None
    target: Annotated[
        str | None,
        Option(
            "Where the model will run; `auto`: the faster of this machine's ONNX Runtime and OpenVINO.",
            "Pipeline",
            short="-t",
            otherwise="the pipeline's, or cpu",
            kept="Where the model runs.",
        ),
    ] = None
    pipeline: Annotated[
        str | None,
        Option(
            "Pipeline by name or YAML file; `auto` tries several and keeps the fastest that meets all limits.",
            "Pipeline",
            short="-p",
            otherwise="the target's own",
        ),
    ] = None
    settings: Annotated[
        Mapping[str, object],
        Option(
            "Set a parameter of a stage, of a `search`, of `tune`, of the target's `runtime`, or a limit of `gates`; "
            "repeatable. `optimize show STAGE` lists them.",
            "Pipeline",
            short="-s",
            flag="--set",
            metavar="STAGE.PARAMETER=VALUE",
            read=read_settings,
            write=write_setting,
            repeated=True,
            kept="What was set with `--set`, `--runtime` or `--device`, by the parameter's full name.",
        ),
    ] = field(default_factory=dict)
    runtime: Annotated[
        Mapping[str, object],
        Option(
            "Settings that the target runs with: hint=throughput,precision=bf16. Short for `--set runtime.…`.",
            "Pipeline",
            metavar="SETTING=VALUE,…",
            read=read_runtime,
            write=write_pairs,
            kept="All settings that the target ran the model with.",
        ),
    ] = field(default_factory=dict)
    budget: Annotated[
        float | None,
        Option(
            "Share of the encoder that is kept where `prune` is a stage. Short for `--set prune.budget=…`.",
            "Pipeline",
            sets="prune.budget",
        ),
    ] = None
    fastest_within: Annotated[
        float | None,
        Option(
            "Let `prune` find the smallest budget that loses no more of the metric than this share, such as 1%. Short "
            "for `--set prune.fastest_within=…`.",
            "Pipeline",
            metavar="SHARE",
            read=read_share,
            sets="prune.fastest_within",
        ),
    ] = None
    vocabulary: Annotated[
        str | None,
        Option(
            "Prune the vocabulary first, to the words of these texts: .txt, .jsonl, or a folder. Short for "
            "`--set prune_vocabulary.corpus=…`.",
            "Pipeline",
            metavar="FILE",
            sets="prune_vocabulary.corpus",
        ),
    ] = None
    minutes: Annotated[
        float | None,
        Option(
            "How long a search may build, such as that of pipeline `fastest`, or train. Short for "
            "`--set search.minutes=…` or, of `optimize tune`, `--set tune.minutes=…`.",
            "Pipeline",
            sets="search.minutes",
        ),
    ] = None
    # NumPy takes no seed below zero.
    seed: Annotated[int, Option("Seed of everything random.", "Pipeline", least=0)] = 0
    shapes: Annotated[
        tuple[str, ...],
        Option(
            "Shapes to measure latency at, BATCHxTOKENS; `data` for lengths as they occur.",
            "Measurement",
            metavar="SHAPE,…",
            read=read_shapes,
            write=",".join,
        ),
    ] = DEFAULT_SHAPES
    threads: Annotated[
        int | None, Option("Threads that a model runs with.", "Measurement", least=1, otherwise="all cores")
    ] = None
    no_texts: Annotated[
        bool, Option("Keep the data's texts, and answers that quote them, out of the run's folder.", "Output")
    ] = False


@dataclass(frozen=True, kw_only=True)
class Options(Asked):
    """What a user may ask for, on the command line and in Python; None means: choose sensibly."""

    device: Annotated[
        str | None,
        Option(
            "Device of the target, such as GPU, or a number. Short for `--set runtime.device=…`.",
            "Pipeline",
            otherwise="the target's",
            sets="runtime.device",
        ),
    ] = None
    build_only: Annotated[
        bool, Option("Build without measuring, to certify on another machine; exit code 4.", "Measurement")
    ] = False
    out: Annotated[
        Path, Option("Folder that run folders go into.", "Output", short="-o", metavar="FOLDER", read=user_path)
    ] = Path("reports/runs")
    cache: Annotated[
        Path | str | None,
        Option(
            "Folder that keeps finished stages, or the address of a store by which machines share them, such as "
            "s3://bucket/folder; with `read+` before it, nothing is put there.",
            "Output",
            metavar="FOLDER|ADDRESS",
            otherwise="the user's cache",
            read=read_cache,
        ),
    ] = None
    junit: Annotated[
        Path | None,
        Option(
            "Write the limits' outcomes as JUnit XML, too, for CI services to show.",
            "Output",
            metavar="FILE",
            otherwise="no such file",
            read=user_path,
        ),
    ] = None
    track: Annotated[
        str | None,
        Option(
            "Record the finished run in a tracker, too: `mlflow`, or mlflow:URI for a server or store.",
            "Output",
            metavar="TRACKER[:URI]",
            otherwise="no tracker",
        ),
    ] = None


@dataclass(frozen=True)
class HeadCode:
    """Where a head of the user's own is, the SHA-256 of that file, and what opening its models takes.

    The fields that are called so as those of `optimize.interfaces.Head` are these.
    """

    __pydantic_config__: ClassVar[Mapping[str, object]] = {"extra": "forbid"}

    file: str
    attribute: str
    digest: str
    outputs: tuple[str, ...]
    reads: Reads
    weights: tuple[str, ...]
    axes: tuple[str, ...]
    example: tuple[str, ...]

    @property
    def reference(self) -> str:
        """What the command line calls it."""
        return f"{self.file}:{self.attribute}"


@dataclass(frozen=True, kw_only=True)
class Request(Asked):
    """What was asked for, complete with defaults, as a manifest keeps it."""

    # Where pydantic looks for the configuration of a standard dataclass: a field that nobody knows is refused.
    __pydantic_config__: ClassVar[Mapping[str, object]] = {"extra": "forbid"}

    # `field()` takes the default away that the base class has: what was chosen sensibly is always there.
    target: str = field()
    head: str = field()
    model: str = field()
    data: str = field()
    threads: int = field()
    pipeline: str = field()
    training_examples: int = 0  # where no stage trains
    stages: Annotated[
        Sequence[Mapping[str, Mapping[str, Any]]],
        Option("The pipeline's stages with all their parameters, as YAML would give them.", "Pipeline"),
    ]
    gates: Annotated[Mapping[str, Any], Option("The limits that were judged by.", "Pipeline")]
    head_code: Annotated[
        HeadCode | None,
        Option("For a head of the user's own: its file, name and SHA-256, and what opening its models takes.", "Model"),
    ] = None


@dataclass(frozen=True)
class Declared:
    """An option with its name, type and default."""

    name: str
    type: Any
    default: Any
    option: Option

    @property
    def flag(self) -> str:
        """What it is called on the command line."""
        return self.option.flag or f"--{self.name.replace('_', '-')}"


@cache
def declared(kind: type[Asked] = Options) -> Mapping[str, Declared]:
    """All options by name, in the order of the panels."""
    hints = typing.get_type_hints(kind, include_extras=True)
    found = []
    for each in fields(kind):
        if typing.get_origin(hints[each.name]) is Annotated:
            type_, option = typing.get_args(hints[each.name])
            default = each.default_factory() if each.default_factory is not MISSING else each.default
            found.append(Declared(each.name, type_, default, option))
    panels = typing.get_args(Panel)
    return {each.name: each for each in sorted(found, key=lambda each: panels.index(each.option.panel))}


@dataclass(frozen=True)
class Setting:
    """A parameter to be set: of a stage, of the target's `runtime`, or of `gates`; `where` begins refusals."""

    owner: str
    parameter: str
    value: object
    where: str

    @property
    def name(self) -> str:
        """The parameter's full name."""
        return f"{self.owner}.{self.parameter}"


def settings_of(options: Options) -> list[Setting]:
    """All that options set, whatever they are short for; refuse to set one parameter twice."""
    if options.budget is not None and options.fastest_within is not None:
        raise RequestError("--budget: --fastest-within looks for the budget; give one of the two")
    found: dict[str, Setting] = {}
    for setting in _settings(options):
        if setting.name in found:
            first = found[setting.name].where
            raise RequestError(f"{setting.where}: sets {setting.name}, as {first} does; give one of the two")
        found[setting.name] = setting
    return list(found.values())


def _settings(options: Options) -> Iterator[Setting]:
    for name, value in options.runtime.items():
        yield Setting("runtime", name, value, "--runtime")
    for each in declared().values():
        value = getattr(options, each.name)
        if each.option.sets is not None and value is not None:
            owner, _, parameter = each.option.sets.partition(".")
            yield Setting(owner, parameter, value, each.flag)
    for name, value in options.settings.items():
        owner, _, parameter = name.partition(".")
        yield Setting(owner, parameter, value, "--set")


def kept(options: Options) -> dict[str, Any]:
    """What a manifest's request takes from options as it is."""
    own = ("--set", "--runtime", "--device")  # the other shorthands have fields of their own since schema 1
    settings = {each.name: each.value for each in settings_of(options) if each.where in own}
    return {**{each.name: getattr(options, each.name) for each in fields(Asked)}, "settings": settings}


def options_of(request: Request, *, out: Path, cache: Path | str | None) -> Options:
    """The options that ask for a request again, but for what sets parameters: its stages have them."""
    again = {
        name: getattr(request, name)
        for name, each in declared(Asked).items()
        if not each.option.sets and name not in ("settings", "runtime")
    }
    examples = request.training_examples or Options.training_examples
    return Options(**{**again, "training_examples": examples}, out=out, cache=cache)


def words_of(request: Request, *, chosen: bool = False) -> Iterator[tuple[Declared, str]]:
    """Each option that asks for the same again, with its words as a shell reads them.

    Where the pipeline was `chosen`, each candidate has a runtime of its own; only what was set is the same for all.
    """
    for each in declared(Asked).values():
        value, least = getattr(request, each.name), each.option.least
        if each.name == "head" and request.head_code is not None:
            value = request.head_code.reference
        if each.name == "settings":
            for key, setting in value.items():
                if chosen or not key.startswith("runtime."):  # else it is part of `runtime`
                    yield each, f"{each.flag} {shlex.quote(f'{key}={write_setting(setting)}')}"
        elif each.name == "runtime" and chosen:
            continue
        elif least is not None and value is not None and value < least:
            continue  # no stage trains, so no training examples were read: nobody can ask for that
        elif text := in_words(each, value):
            yield each, text


def in_words(each: Declared, value: Any) -> str:
    """A value behind its flag; of a switch, the flag alone where it is on."""
    if isinstance(value, bool):
        return each.flag if value else ""
    text = "" if value is None else each.option.write(value)
    return f"{each.flag} {shlex.quote(text)}" if text else ""
