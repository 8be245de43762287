"""Proof that a model computes what the one that it was made from computes.

The probes cover what users send and what breaks fused attention: several batch sizes and lengths,
right padding, left padding, and masks with holes. Positions that are masked are not compared,
because no head reads them. The graph is run with its runtime's own optimizations on, as it is
run later.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from optimize.artifact import Artifact, Kind
from optimize.checkpoint import read_config
from optimize.errors import StageError
from optimize.interfaces import Array, Context, Feed

SHAPES = ((1, 1), (1, 16), (2, 7), (3, 33), (1, 128))  # batch x tokens, odd ones included: kernels have other tails


def check_parity(
    folder: Path,
    source: Artifact,
    context: Context,
    *,
    stage: str,
    tolerance: float,
    kind: Kind = "onnx",
    max_tokens: int | None = None,
) -> float:
    """The largest absolute difference; refuses one above `tolerance` times the outputs' scale."""
    worst, scale = compare(folder, source, context, kind=kind, max_tokens=max_tokens)
    if not worst <= tolerance * max(scale, 1.0):  # so put that NaN is refused
        raise StageError(
            f"{stage}: outputs differ from the source model's by {worst:.2e} "
            f"(allowed {tolerance * max(scale, 1.0):.0e}); "
            "this graph is not used; report the model's config and library versions"
        )
    return worst


def compare(
    folder: Path, source: Artifact, context: Context, *, kind: Kind = "onnx", max_tokens: int | None = None
) -> tuple[float, float]:
    """Largest absolute difference over all probes, and the largest absolute reference output."""
    reference = context.open(source.kind, source.path)
    candidate = context.open(kind, folder)
    worst = scale = 0.0
    for feed in probes(context, max_tokens=max_tokens):
        expected, got = reference(feed), candidate(feed)
        for name in context.head.outputs:
            kept = feed["attention_mask"] == 1 if context.head.reads == "all tokens" else ...
            # `np.maximum` keeps NaN, which `max` may drop.
            worst = float(np.maximum(worst, np.max(np.abs(expected[name] - got[name])[kept])))
            scale = max(scale, float(np.max(np.abs(expected[name])[kept])))
    return worst, scale


def probes(context: Context, *, max_tokens: int | None = None) -> Iterator[Feed]:
    """Feeds of random tokens: each shape with full, right-padded, left-padded and holed masks."""
    config = read_config(context.reference.path)
    longest = min(config["max_position_embeddings"], max_tokens or config["max_position_embeddings"])
    rng = np.random.default_rng(context.seed)
    choices = _choices(context)
    for batch, tokens in SHAPES:
        if tokens > longest:
            continue
        shape = (batch, tokens) if choices is None else (batch, choices, tokens)
        for mask in _masks(shape, rng):
            yield {"input_ids": rng.integers(0, config["vocab_size"], shape, dtype=np.int64), "attention_mask": mask}


def _choices(context: Context) -> int | None:
    features = context.calibration.features
    ids = features[0].inputs["input_ids"] if features else np.zeros(1)
    return ids.shape[0] if ids.ndim == 2 else None


def _masks(shape: tuple[int, ...], rng: np.random.Generator) -> Iterator[Array]:
    """Masks of this shape: full, right-padded, left-padded and with holes."""
    tokens = shape[-1]
    yield np.ones(shape, dtype=np.int64)
    if tokens < 4:
        return
    lengths = rng.integers(tokens // 3, tokens, shape[:-1])[..., None]
    positions = np.arange(tokens)
    yield (positions < lengths).astype(np.int64)
    yield (positions >= tokens - lengths).astype(np.int64)
    holes = (rng.random(shape) < 0.7).astype(np.int64)
    holes[..., tokens // 2] = 1  # a text of which nothing is attended to has no answer
    yield holes
