"""What a run's reference and its result answered to each certification example, in words: evidence beside the manifest.

The file is JSON lines, compressed, an example a line. A manifest holds what all of them say together.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterable
from pathlib import Path

from pydantic import Field, ValidationError

from optimize.errors import RequestError, first_line
from optimize.files.putting import put_file
from optimize.manifest import Record

FILE = "examples.jsonl.gz"
MOST_BYTES = 2**30
"""Of the lines that are read, uncompressed."""


class Answer(Record):
    """What one model answered."""

    answer: str | None = Field(description="In words: labels, spans, tags; null where texts are kept out.")
    confidence: float | None = Field(description="How sure the model was, from 0 to 1; null where it cannot say.")
    right: bool | None = Field(description="Whether it is right; null where answers are not right or wrong.")
    decisions: list[tuple[float, bool]] = Field(
        description="How sure the model was of each class that it chose, and whether that is the right one."
    )


class Example(Record):
    """One certification example."""

    texts: dict[str, str] = Field(description="Its texts by the role that they play; none where they are kept out.")
    tokens: int = Field(description="Tokens of its longest text.")
    gold: str | None = Field(description="The right answer in words; null where texts are kept out.")
    same: bool = Field(description="Whether both models gave the same answer.")
    reference: Answer = Field(description="What the PyTorch FP32 reference answered.")
    result: Answer = Field(description="What the judged model answered.")


def write(examples: Iterable[Example], folder: Path) -> None:
    """Write the examples into a run folder; the same bytes for the same examples."""
    stream = io.BytesIO()
    with gzip.GzipFile(fileobj=stream, mode="wb", mtime=0) as packed:
        for each in examples:
            packed.write(each.model_dump_json().encode() + b"\n")
    put_file(folder / FILE, stream.getvalue())


def read(folder: Path) -> list[Example]:
    """The examples of a run folder, none where it has none; refuse a file that is not such."""
    path = folder / FILE
    if not path.is_file():
        return []
    try:
        with gzip.open(path) as stream:
            lines = stream.read(MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:  # no gzip, cut off, damaged
        raise _unfit(path, first_line(error)) from error
    if len(lines) > MOST_BYTES:
        raise _unfit(path, f"it holds more than {MOST_BYTES:,} bytes")
    try:
        return [Example.model_validate_json(line) for line in lines.splitlines()]
    except ValidationError as error:
        raise _unfit(path, first_line(ValueError(error.errors()[0]["msg"]))) from error


def _unfit(path: Path, reason: str) -> RequestError:
    return RequestError(f"{path}: is not what a run writes ({reason}); certify the run again")
