"""Shapes at which latency is measured: `BATCHxTOKENS`, or `data` and `BATCHxdata` for lengths as they occur."""

from __future__ import annotations

import re

from optimize.errors import RequestError

DATA = "data"
ON_DEVICE = "@device"
"""What the name of a shape ends in where feeds and outputs lay in the device's memory."""


def parse_shape(text: str, *, where: str = "shape") -> tuple[int, int | None]:
    """`(batch, tokens)` of a shape, without tokens where they are the data's; refuses anything else."""
    match = re.fullmatch(rf"(?:([1-9]\d*)x)?([1-9]\d*|{DATA})", text)
    if match is None or (match[1] is None and match[2] != DATA):
        raise RequestError(
            f"{where}: '{text}' is not a shape; write BATCHxTOKENS, such as 1x128, or '{DATA}', or BATCHx{DATA}"
        )
    return int(match[1] or 1), None if match[2] == DATA else int(match[2])
