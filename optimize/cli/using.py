"""Commands that use a finished model: `optimize predict` and `optimize serve`."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Annotated, Any, Optional

import typer

from optimize.cli import verbosity
from optimize.cli.options import QuietOption, VerboseOption
from optimize.errors import DataError, RequestError, UnavailableError, brief, first_line

TOGETHER = 64
"""Lines that are read before the first of them is answered, so that they run in batches of similar length."""

SERVING = ("uvicorn", "starlette", "prometheus_client")

PlaceArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="A run's folder, a publication, or the address of one.")
]
ThreadsOption = Annotated[
    Optional[int],
    typer.Option("--threads", min=1, help="Threads of a run.  [default: the cores that this process has]"),
]
OverflowOption = Annotated[
    bool,
    typer.Option(
        "--allow-overflow", help="Run full 8-bit weights on a CPU without VNNI, where sums overflow and answers differ."
    ),
]


def predict(
    model: PlaceArgument,
    words: Annotated[
        Optional[list[str]],
        typer.Argument(
            metavar="TEXT",
            help="Texts, each an input; a question and its context; a context and its choices. Else stdin.",
        ),
    ] = None,
    settings: Annotated[
        Optional[list[str]],
        typer.Option("--option", "-o", metavar="NAME=VALUE", help="Option of the task, such as top_k=3; repeatable."),
    ] = None,
    json_lines: Annotated[bool, typer.Option("--json-lines", help="Lines of stdin are JSON, each an input.")] = False,
    threads: ThreadsOption = None,
    allow_overflow: OverflowOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Answer texts with a finished model, a line of JSON each, as transformers.pipeline would.

    Options are those of the model's head; see the guide, Use in Python.
    """
    import optimize

    options: dict[str, Any] = dict(map(_option, settings or []))
    loaded = optimize.load(model, threads=threads, allow_overflow=allow_overflow)
    loaded.options(options)
    inputs = iter(loaded.task.read_words(words)) if words else _lines(json_lines=json_lines)
    while some := list(islice(inputs, TOGETHER)):
        for answer in loaded(some, **options):
            print(json.dumps(answer, ensure_ascii=False, default=_plain))


def _option(text: str) -> tuple[str, Any]:
    """A name with its value, which is written as in YAML."""
    from optimize.files.small import parse_yaml

    name, equals, value = text.partition("=")
    if not (name and equals):
        raise RequestError(f"--option: '{brief(text)}' is not NAME=VALUE; write for instance top_k=3")
    try:
        return name, parse_yaml(value)
    except ValueError as error:
        raise RequestError(f"--option: '{brief(value)}' is not YAML ({error}); write it as YAML") from error


def _lines(*, json_lines: bool) -> Iterator[Any]:
    """The inputs on stdin; empty lines are none."""
    for number, line in enumerate(_text_lines(sys.stdin.buffer), 1):
        if not line.strip():
            continue
        if not json_lines:
            yield line.rstrip("\r\n")
            continue
        try:
            yield json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"stdin: line {number} is not JSON ({first_line(error)}); give an input a line") from error


def _text_lines(stream: Iterable[bytes]) -> Iterator[str]:
    for number, line in enumerate(stream, 1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"stdin: line {number} is not UTF-8; write it as UTF-8") from error


def _plain(value: Any) -> Any:
    """What JSON has for an array of numpy."""
    return value.tolist()


def serve(
    model: PlaceArgument,
    host: Annotated[str, typer.Option("--host", help="Address to listen at; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0 for any that is free.")] = 8080,
    name: Annotated[
        Optional[str], typer.Option("--name", help="The model's name in addresses.  [default: its head]")
    ] = None,
    max_batch: Annotated[int, typer.Option("--max-batch", min=1, help="Most texts that run at a time.")] = 8,
    max_padding: Annotated[
        float, typer.Option("--max-padding", min=0, help="Most padding in a batch, as a share of its texts' tokens.")
    ] = 0.1,
    max_wait_ms: Annotated[
        float, typer.Option("--max-wait-ms", min=0, help="Milliseconds that a text waits for others to run with.")
    ] = 0.0,
    max_queue: Annotated[
        int, typer.Option("--max-queue", min=1, help="Texts that wait; more are refused with 429.")
    ] = 256,
    max_body_bytes: Annotated[int, typer.Option("--max-body-bytes", min=1, help="Most bytes of a request.")] = 2**20,
    body_seconds: Annotated[
        float, typer.Option("--body-seconds", min=0.001, help="Seconds in which a request has to be sent.")
    ] = 30.0,
    max_texts: Annotated[int, typer.Option("--max-texts", min=1, help="Most inputs of a request.")] = 64,
    max_characters: Annotated[
        int, typer.Option("--max-characters", min=1, help="Most characters of an input.")
    ] = 100_000,
    grace_seconds: Annotated[
        float,
        typer.Option("--grace-seconds", min=0, help="Seconds to finish answers in, once told to end."),
    ] = 30.0,
    workers: Annotated[
        int, typer.Option("--workers", min=1, help="Batches that run at a time, each on --threads.")
    ] = 1,
    threads: ThreadsOption = None,
    allow_overflow: OverflowOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Serve a finished model over HTTP: `/predict`, the Open Inference Protocol, `/metrics`.

    SIGTERM ends it once all that is being answered is answered.
    """
    import optimize
    from optimize.serving.limits import Limits

    if missing := [name for name in SERVING if importlib.util.find_spec(name) is None]:
        raise UnavailableError(f"serve: {missing[0]} is not installed; run: pip install 'distilbert-optimize[serve]'")
    from optimize.serving.server import serve

    limits = Limits(
        max_batch=max_batch,
        max_padding=max_padding,
        max_wait_ms=max_wait_ms,
        max_queue=max_queue,
        max_body_bytes=max_body_bytes,
        max_texts=max_texts,
        max_characters=max_characters,
        body_seconds=body_seconds,
        grace_seconds=grace_seconds,
    )
    loaded = optimize.load(model, threads=threads, allow_overflow=allow_overflow)
    named = name or loaded.head.name
    serve(loaded, name=named, host=host, port=port, limits=limits, workers=workers, requests=not verbosity.is_quiet())
