"""What libraries complain of though nothing is wrong, kept off the terminal of whoever uses this package.

transformers imports torchao where it is installed, which complains of GPU libraries and of torch's own renamings.
matplotlib complains of a home that it cannot write to, and does without.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

NOISY = ("torchao", "torch.utils._pytree", "matplotlib")


def hush(names: Iterable[str] = NOISY, level: int = logging.ERROR) -> None:
    """Let these log nothing below a level, unless somebody has set theirs; cheap, and harmless to call again."""
    for name in names:
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(level)


def unhush(names: Iterable[str] = NOISY) -> None:
    """Let them log as they would by themselves."""
    for name in names:
        logging.getLogger(name).setLevel(logging.NOTSET)
