"""Shapes at which latency is measured: `BATCHxTOKENS`, or `data` for lengths as they occur."""

from __future__ import annotations

import re

from optimize.errors import RequestError

DATA = "data"
DEFAULT_SHAPES = ("1x16", "1x128", "8x128", "1x384", DATA)


def parse_shape(text: str, *, where: str = "shape") -> tuple[int, int] | None:
    """`(batch, tokens)` of a shape; None for `data`; refuses anything else."""
    if text == DATA:
        return None
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if match is None:
        raise RequestError(f"{where}: '{text}' is no shape; write BATCHxTOKENS, such as 1x128, or '{DATA}'")
    return int(match.group(1)), int(match.group(2))
