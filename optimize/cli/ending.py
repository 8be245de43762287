"""How a command ends: with the exit code of its verdict, or with one line and the code of what stopped it.

Exit code 1 is a limit that was not met, so nothing else may end with it; Python would, for whatever nobody catches.
What nobody foresaw ends in one line too; its traceback goes to a file that the line names. Nothing but Python's own
library is needed here, so that a broken installation is told in a line as well.
"""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

from optimize.cli import verbosity
from optimize.cli.logs import write_log
from optimize.cli.remedies import explain
from optimize.cli.signals import Heed, heeded
from optimize.cli.streams import READER_LEFT, LastingFile, lasting_streams
from optimize.errors import OptimizeError, RequestError, first_line, printable

FAILED = OptimizeError.exit_code
KEPT = "what is finished is kept"


def end(act: Callable[[], int | None]) -> NoReturn:
    """Do the work and end the process as it ends.

    `act` gives an exit code, or None where what it printed is its result.
    """
    verbosity.be_usual()
    with lasting_streams() as files, heeded() as heed:
        try:
            code = act()
        except SystemExit:  # how Typer answers shells that ask what completes a word
            raise
        except BaseException as error:  # noqa: BLE001  (whatever it is, Python would end it with code 1)
            code = _tell(error, heed)
        code = _flush(files, code)
    sys.exit(code)


def _tell(error: BaseException, heed: Heed) -> int:
    """Say what stopped the work, in one line, and before it, if that was asked for, where; the exit code."""
    if verbosity.is_verbose():
        traceback.print_exception(error)
    line, code = _line_and_code(error, heed)
    _say(line)
    return code


def _line_and_code(error: BaseException, heed: Heed) -> tuple[str, int]:
    # First, since a signal may end in any exception: a library wraps it, or a process of ours got it too.
    if heed.first is not None:
        return _of_signal(heed.first)
    if isinstance(error, OptimizeError):
        return str(error), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return _of_signal(signal.SIGINT)
    if isinstance(error, UnicodeEncodeError) and error.reason == "surrogates not allowed":
        text = f"{error.object!r}: is not UTF-8; rename the file or folder, or mend the text"
        return text, RequestError.exit_code
    if isinstance(error, OSError) and (line := explain(error)):
        return line, FAILED
    return _unforeseen(error), FAILED


def _of_signal(number: signal.Signals) -> tuple[str, int]:
    """What shells have as the code: 128 and the number."""
    what = "interrupted" if number == signal.SIGINT else f"ended by {number.name}"
    return f"{what}; {KEPT}", 128 + number


def _unforeseen(error: BaseException) -> str:
    what = f"{type(error).__name__}: {first_line(error)}" if str(error) else type(error).__name__
    remedy = "this was not foreseen, please report it"
    if isinstance(error, ImportError):
        remedy = "install distilbert-optimize anew, and report it if that does not help"
    if verbosity.is_verbose():
        return f"{what}; {remedy} with what stands above"
    log = write_log(error)
    return f"{what}; {remedy} with {log or 'what --verbose shows'}"


def _flush(files: dict[str, LastingFile], code: int | None) -> int:
    """Write out what is left; a result that could not be printed is a failure where there is no other result."""
    sys.stdout.flush()
    failure = files["stdout"].failure if "stdout" in files else None
    if failure is None or failure.errno in READER_LEFT:
        return code or 0
    _say(f"stdout: {failure.strerror}; what was printed is not whole, print it elsewhere")
    return FAILED if code is None else code


def _say(line: str) -> None:
    # Messages of other libraries may have line breaks; who reads logs by line must not lose half of ours.
    print("optimize: " + printable(" ".join(line.split())), file=sys.stderr)
