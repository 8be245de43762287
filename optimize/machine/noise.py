"""What libraries complain of though nothing is wrong, kept off the terminal of whoever uses this package.

transformers imports torchao where it is installed, which complains of GPU libraries and of torch's own renamings.
matplotlib complains of a home that it cannot write to, and does without.
"""

from __future__ import annotations

import logging

NOISY = ("torchao", "torch.utils._pytree", "matplotlib")


def hush() -> None:
    """Let these log nothing below errors, unless somebody has set their level; cheap, and harmless to call again."""
    for name in NOISY:
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.ERROR)


def unhush() -> None:
    """Let them log as they would by themselves."""
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.NOTSET)
