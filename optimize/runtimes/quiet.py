"""Libraries that talk while they are used, and that draw from PyTorch's random numbers: kept quiet."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Keep what libraries log off the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Keep what libraries log and warn of off the terminal, and PyTorch's random numbers as they were."""
    import torch

    with silent(), warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        yield
