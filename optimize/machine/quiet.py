"""Libraries that talk while they are imported and used, and that draw from PyTorch's random numbers: kept quiet."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Keep the libraries' logs and warnings off the terminal, and PyTorch's random numbers as they were."""
    import torch

    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
