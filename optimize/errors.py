"""Everything this package refuses or fails with, and the exit code each one carries.

    OptimizeError                 3  the root: nothing else is raised on purpose
    ├── RequestError              2  the request cannot be met as it was written
    │   ├── UnknownNameError      2  a name that is in no table; suggests the nearest
    │   ├── OrderError            2  stages that cannot come after one another, as they are set
    │   ├── SourceError           2  the checkpoint is missing, damaged, or not a DistilBERT
    │   ├── SealError             2  a model folder is not what was sealed
    │   └── DataError             2  the data set is missing, unreadable, or does not fit the head
    ├── UnavailableError          3  this machine lacks the hardware or the extra that is needed
    └── StageError                3  a stage could not do its work, or broke a promise it must keep

A message reads *where: what; what to do* and fits on one line. Exit codes 0, 1 and 4 are not
errors: they are verdicts (see `optimize.gates`). Signals end with 128 and their number, and what
else was not foreseen with 3; nothing but a verdict ends with 1 (see `optimize.cli.ending`).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class OptimizeError(Exception):
    """Root of the tree; the command line prints its message and exits with `exit_code`."""

    exit_code = 3


class RequestError(OptimizeError):
    """The request cannot be met as it was written."""

    exit_code = 2


class UnknownNameError(RequestError):
    """A name that is in no table."""


class OrderError(RequestError):
    """Stages, each of them sound, that cannot come after one another as they are set."""


class SourceError(RequestError):
    """The checkpoint cannot be used."""


class DataError(RequestError):
    """The data set cannot be used."""


class SealError(RequestError, OSError):
    """A model folder of ours is not what was sealed.

    An OSError as well: who reads a cache takes it, as a file that cannot be read, for damage and builds anew.
    """


class UnavailableError(OptimizeError):
    """This machine lacks what the request needs."""


class StageError(OptimizeError):
    """A stage failed, or its output broke a promise."""


def unknown_name(where: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """Build the refusal of `name`, with the nearest of `known` as a suggestion."""
    names, name = sorted(known), brief(name)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"choose one of: {', '.join(names)}"
    return UnknownNameError(f"{where}: unknown name '{name}'; {hint}")


def first_line(error: BaseException) -> str:
    """The first non-empty line of another library's message, for quoting in one of ours."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def brief(value: object, most: int = 80) -> str:
    """A value of the user's for quoting in a message: one line of what can be printed, cut to `most` characters."""
    try:
        text = str(value)
    except ValueError:  # Python refuses to print whole numbers of thousands of digits
        return "a number that is too long to print"
    # Only what is shown is looked at: a value may be as long as a file.
    quoted = printable(text[:most])
    return f"{quoted}…" if len(text) > most else quoted


def shown(value: object, most: int = 80) -> str:
    """The same with text between quotes, so that it is told from a number."""
    if not isinstance(value, str):
        return brief(value, most)
    return f"{value[:most]!r}{'…' if len(value) > most else ''}"


def printable(text: str) -> str:
    """Text with what would move a terminal's cursor or change its colours spelt out."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)
