"""The options of commands, each declared once, and what becomes of their values."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from optimize.errors import RequestError
from optimize.planning import Options

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


def options_from(values: dict[str, Any]) -> Options:
    """Options from a command's parameters."""
    from dataclasses import fields

    from optimize.planning import Options

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
