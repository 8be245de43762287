"""Scales of INT8 weights, chosen so that no sum can overflow.

CPUs without VNNI multiply u8 activations with s8 weights and add two neighbouring products in 16
bits, saturating (x86 `vpmaddubsw`; onnxruntime issue 6004). 7-bit weights rule that out and give a
bit away everywhere. It is enough that no two weights which may be added there exceed 128 in sum:
255 * 128 = 32,640 < 2^15. The scale of an output channel is the smallest one with that property,
so a channel keeps nearly 8 bits wherever its large weights have small neighbours. Which two of four
neighbours a kernel adds is its own affair, so each pair of an aligned block of four is held to it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

PAIR_LIMIT = 128
BLOCK = 4
STEP = 1.0 + 1.0 / 512.0
WIDE_SUMS = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp")
"""CPU features with which 8-bit products are summed in 32 bits."""


def choose_range(reduce_range: bool | str, cpu_features: tuple[str, ...]) -> tuple[bool, str]:
    """Whether weights are held back so that no 16-bit sum overflows, and why; "auto" asks the CPU's features."""
    wide = sorted(set(WIDE_SUMS) & set(cpu_features))
    if isinstance(reduce_range, bool):
        return reduce_range, "as asked for"
    if wide:
        return False, f"{wide[0]} sums in 32 bits"
    return True, "no VNNI: 16-bit sums would saturate"


def channel_scales(weight: Array, *, per_channel: bool, reduce_range: bool) -> Array:
    """Scales [N] of symmetric INT8 weights [K, N]; all equal unless `per_channel`.

    `reduce_range` keeps sums of 16 bits from saturating (CPUs without VNNI); it costs precision. A channel
    of weights too small for a normal scale becomes zeros: subnormal scales are flushed, or don't grow.
    """
    peaks = np.abs(weight).max(axis=0)
    if not per_channel:
        peaks = np.full_like(peaks, peaks.max(initial=0.0))
    scales: Array = (peaks / 127.0).astype(np.float32)
    scales[scales < np.finfo(np.float32).tiny] = 1.0
    if not reduce_range:
        return scales
    pairs = worst_pairs(weight) if per_channel else np.full_like(peaks, worst_pairs(weight).max(initial=0.0))
    scales = np.maximum(scales, (pairs / (PAIR_LIMIT + 1)).astype(np.float32))
    while (over := worst_pairs(quantize(weight, scales)) > PAIR_LIMIT).any():
        scales[over if per_channel else slice(None)] *= STEP
    return scales


def quantize(weight: Array, scales: Array) -> Array:
    """INT8 weights [K, N], rounded to nearest."""
    rounded: Array = np.clip(np.rint(weight / scales), -127, 127).astype(np.int8)
    return rounded


def worst_pairs(weight: Array) -> Array:
    """Per column [N] of weights [K, N] the largest sum of two of one sign among four neighbours, as a magnitude."""
    rows, columns = weight.shape
    padded = np.zeros((-(-rows // BLOCK) * BLOCK, columns), dtype=np.int16 if weight.dtype == np.int8 else weight.dtype)
    padded[:rows] = weight
    ordered = np.sort(padded.reshape(-1, BLOCK, columns), axis=1)
    highest = np.maximum(ordered[:, -1], 0) + np.maximum(ordered[:, -2], 0)
    lowest = np.minimum(ordered[:, 0], 0) + np.minimum(ordered[:, 1], 0)
    found: Array = np.maximum(highest, -lowest).max(axis=0)
    return found
