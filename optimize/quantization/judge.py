"""How much a candidate loses on tuning data, and whether a budget allows it.

Tuning data are few, so the metric alone is a coarse judge: on 500 examples one flipped answer is
0.2 %. Beside it stand the agreement of decisions and the divergence of the outputs, which move
smoothly and rank candidates that the metric cannot tell apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from optimize.evaluate.accuracy import compare
from optimize.evaluate.drift import Observed, agree, cosine, divergence
from optimize.evaluate.predict import run_split
from optimize.interfaces import Budget, Context, Encoded, Head, Session

RESAMPLES = 200


@dataclass(frozen=True)
class Loss:
    """What a candidate lost against the reference.

    `relative_drop` is a share of the reference's score. `divergence` is the mean KL of the outputs in
    nats, or one minus their cosine, or their mean squared error over the reference's; `sqnr_db` is the
    outputs' signal-to-quantization-noise ratio. The drops are at the upper end of their interval where
    the budget asks for confidence.
    """

    metric: float
    drop: float
    relative_drop: float
    agreement: float
    divergence: float
    sqnr_db: float


@dataclass(frozen=True)
class Judge:
    """Assess sessions on the same bounded tuning data against the same reference."""

    head: Head
    encoded: Encoded
    reference: Observed
    budget: Budget
    pad_id: int
    seed: int

    def assess(self, session: Session) -> Loss:
        """Run the candidate over the tuning data."""
        found = observe(session, self.head, self.encoded, pad_id=self.pad_id)
        confidence = self.budget.confidence
        metric = compare(
            found.score, self.reference.score, confidence=confidence or 0.95, seed=self.seed, resamples=RESAMPLES
        )
        drop = metric.drop if confidence is None else metric.interval[1]
        agreement, _, _ = agree(found.score, self.reference.score)
        distance, sqnr_db = distances(found, self.reference, self.head)
        scale = abs(metric.reference) or 1.0
        return Loss(metric.value, drop, drop / scale, agreement, distance, sqnr_db)

    def allows(self, loss: Loss) -> bool:
        """Whether the budget allows a loss; a budget without any limit allows all."""
        budget = self.budget
        return (
            (budget.max_drop is None or loss.drop <= budget.max_drop)
            and (budget.max_relative_drop is None or loss.relative_drop <= budget.max_relative_drop)
            and (budget.min_agreement is None or loss.agreement >= budget.min_agreement)
        )


def make_judge(context: Context, session: Session, *, tokens: int) -> Judge:
    """A judge on at most `tokens` tokens of tuning data, or of calibration data where none is left for tuning."""
    encoded = limit_tokens(context.tuning if context.tuning.gold else context.calibration, tokens)
    pad_id = pad_id_of(context.reference.path)
    reference = observe(session, context.head, encoded, pad_id=pad_id)
    return Judge(context.head, encoded, reference, context.budget, pad_id, context.seed)


def pad_id_of(folder: Path) -> int:
    """The token that a checkpoint pads with."""
    import json

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return int(config.get("pad_token_id") or 0)


def limit_tokens(encoded: Encoded, tokens: int) -> Encoded:
    """The first examples, at least one, whose features have at most so many tokens in all."""
    total, last = 0, 0
    for feature in encoded.features:
        total += int(feature.inputs["input_ids"].size)
        if total > tokens and feature.example > 0:
            last = feature.example
            break
        last = feature.example + 1
    features = tuple(feature for feature in encoded.features if feature.example < last)
    return Encoded(features, encoded.gold[:last], encoded.truncated)


def observe(session: Session, head: Head, encoded: Encoded, *, pad_id: int) -> Observed:
    """Score a session, and keep the rows behind the score."""
    outputs = run_split(session, head, encoded, pad_id=pad_id)
    return Observed(head.score(encoded, outputs.answers), outputs.rows)


def distances(found: Observed, reference: Observed, head: Head) -> tuple[float, float]:
    """Divergence and SQNR in dB of the rows that both kept."""
    pairs = list(zip(found.rows, reference.rows, strict=False))
    noise = _energy((ours - theirs, theirs) for ours, theirs in pairs)
    ratio = noise[0] / max(noise[1], 1e-30)
    sqnr_db = -10.0 * math.log10(max(ratio, 1e-12))
    if head.rows_are == "vectors":
        return 1.0 - cosine(pairs), sqnr_db
    distance = divergence(pairs) if head.rows_are == "logits" else None
    return ratio if distance is None else distance, sqnr_db


def _energy(pairs: Any) -> tuple[float, float]:
    totals = [0.0, 0.0]
    for pair in pairs:
        for place, values in enumerate(pair):
            totals[place] += float(np.square(values, dtype=np.float64).sum())
    return totals[0], totals[1]


Open = Callable[[Any], Session]
"""Open an ONNX model that is held in memory."""
