"""How much is shown: kept where Python keeps it, in the level of this package's logger.

`--verbose` shows what libraries log and the traceback of errors, `--quiet` errors and the verdict alone.
"""

from __future__ import annotations

import logging

from optimize.errors import RequestError
from optimize.machine.noise import hush, unhush

# Not the root logger: what a library logs at its own level must not depend on how much of ours is wanted.
LOG = logging.getLogger("optimize")
# Clients of stores log the traceback of what they raise.
CLIENTS = ("azure", "gcsfs")


def be_usual() -> None:
    """Show progress, results and errors."""
    LOG.setLevel(logging.INFO)
    hush()
    hush(CLIENTS, logging.CRITICAL)


def be_verbose(asked: bool) -> bool:
    """Show what libraries log as well, if asked."""
    if asked:
        _refuse_both(is_quiet())
        LOG.setLevel(logging.DEBUG)
        logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
        unhush()
        unhush(CLIENTS)
    return asked


def be_quiet(asked: bool) -> bool:
    """Show errors and the verdict alone, if asked."""
    if asked:
        _refuse_both(is_verbose())
        LOG.setLevel(logging.ERROR)
    return asked


def is_verbose() -> bool:
    """Whether `--verbose` was given."""
    return LOG.level == logging.DEBUG


def is_quiet() -> bool:
    """Whether `--quiet` was given."""
    return LOG.level == logging.ERROR


def _refuse_both(other: bool) -> None:
    if other:
        raise RequestError("--quiet: --verbose asks for the opposite; give one of the two")
