"""How much a candidate loses on tuning data, and whether the limits allow it.

Tuning data are few, so the metric alone is a coarse judge: on 500 examples one flipped answer is
0.2 %. Beside it stand the agreement of decisions and the divergence of the outputs, which move
smoothly and rank candidates that the metric cannot tell apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from optimize.checkpoint import read_config
from optimize.evaluate.accuracy import compare
from optimize.evaluate.drift import Observed, agree, cosine, divergence
from optimize.evaluate.predict import run_split
from optimize.gates import Gates
from optimize.interfaces import Array, Context, Encoded, FactRow, Facts, Head, Progress, Session
from optimize.rule import Estimate, agreement, drop_of, missed

RESAMPLES = 200
LIMITS = {"max_metric_drop": "drop", "max_relative_metric_drop": "relative_drop", "min_agreement": "agreement"}
"""Limits that stages go by, and what of a loss is held against each."""


@dataclass(frozen=True)
class Loss:
    """What a candidate lost against the reference.

    `relative_drop` is a share of the reference's score. `divergence` is the mean KL of the outputs in
    nats, or one minus their cosine, or their mean squared error over the reference's; `sqnr_db` is the
    outputs' signal-to-quantization-noise ratio. `relative_error` is the standard error of `relative_drop`.
    `estimates` are what limits are held against, by their names, with ends at the limits' confidence; of those that are
    missing, ends are the value.
    """

    metric: float
    drop: float
    relative_drop: float
    agreement: float
    divergence: float
    sqnr_db: float
    relative_error: float = 0.0
    estimates: Mapping[str, Estimate] = field(default_factory=dict)

    def estimate(self, limit: str) -> Estimate:
        """What is held against a limit of this name."""
        value = getattr(self, LIMITS[limit])
        return self.estimates.get(limit, Estimate(value, value, value))

    def facts(self, prefix: str) -> FactRow:
        """What a stage states of it."""
        return {
            f"{prefix}_metric": self.metric,
            f"{prefix}_relative_drop": self.relative_drop,
            f"{prefix}_agreement": self.agreement,
            f"{prefix}_divergence": self.divergence,
        }


@dataclass(frozen=True)
class Judge:
    """Assess sessions on the same bounded tuning data against the same reference, by the limits and their rule."""

    head: Head
    encoded: Encoded
    reference: Observed
    limits: Gates
    pad_id: int
    seed: int

    def assess(self, session: Session) -> Loss:
        """Run the candidate over the tuning data."""
        return self.loss_of(self.observe(session))

    def observe(self, session: Session) -> Observed:
        """What the candidate scores on the tuning data, and the rows behind it."""
        return observe(session, self.head, self.encoded, pad_id=self.pad_id)

    def loss_of(self, found: Observed) -> Loss:
        """What a candidate that was observed lost."""
        level, reference = self.limits.level, self.reference.score
        metric = compare(found.score, reference, confidence=level, seed=self.seed, resamples=RESAMPLES)
        share, _, decisions = agree(found.score, reference)
        distance, sqnr_db = distances(found, self.reference, self.head)
        scale = abs(metric.reference) or 1.0
        pairs_of = len(reference.decisions) if reference.ordinal else None
        estimates = {
            "max_metric_drop": drop_of(metric, confidence=level),
            "max_relative_metric_drop": drop_of(metric, confidence=level, unit=scale),
            "min_agreement": agreement(share, decisions, pairs_of=pairs_of, confidence=level),
        }
        drop, error = metric.drop, metric.standard_error / scale
        return Loss(metric.value, drop, drop / scale, share, distance, sqnr_db, error, estimates)

    def divergences(self, found: Mapping[int, Array]) -> dict[int, float]:
        """The divergence of each example, from rows by feature; an example whose rows were not kept has none."""
        parts: dict[int, list[float]] = {}
        for index, rows in found.items():
            if index < len(self.reference.rows):
                distance, _ = row_distances([(rows, self.reference.rows[index])], self.head)
                parts.setdefault(self.encoded.features[index].example, []).append(distance)
        return {example: float(np.mean(values)) for example, values in parts.items()}

    def allows(self, loss: Loss) -> bool:
        """Whether the limits allow a loss; where none is set, all is allowed."""
        return self.excess(loss) == 0.0

    def facts(self, loss: Loss) -> Facts:
        """What a stage states of the graph that it wrote."""
        return {
            "tuning_examples": len(self.encoded.gold),
            **loss.facts("tuning"),
            "tuning_limits": "met" if self.allows(loss) else "not met",
        }

    def excess(self, loss: Loss) -> float:
        """How far the limit that is missed most is missed; 0 within all of them. They are shares, all on one scale."""
        found = [0.0]
        for name in LIMITS:
            limit = getattr(self.limits, name)
            if limit is not None:
                found.append(missed(self.limits.decided_by, name, limit, loss.estimate(name)))
        return max(found)


def make_judge(context: Context, session: Session, *, tokens: int) -> Judge:
    """A judge on at most `tokens` tokens of tuning data, or of calibration data where none is left for tuning."""
    encoded = (context.tuning if context.tuning.gold else context.calibration).first(tokens=tokens)
    pad_id = pad_id_of(context.reference.path)
    reference = observe(session, context.head, encoded, pad_id=pad_id)
    return Judge(context.head, encoded, reference, context.limits, pad_id, context.seed)


def beyond_help(judge: Judge, given: Loss, *, stage: str, progress: Progress) -> Facts:
    """What a stage states where the model that it was given misses the limits by itself; nothing where it does not.

    No layer left in float could mend that, so none is to be left there for it.
    """
    if judge.allows(given):
        return {}
    progress.say(f"{stage}: what it was given misses the limits by itself: {describe(given)}; no layer stays in float")
    return {"tuning_limits": "missed before this stage", "given_relative_drop": given.relative_drop}


def describe(loss: Loss) -> str:
    """A loss in words."""
    return f"relative drop {loss.relative_drop:.4f}, agreement {loss.agreement:.4f}, divergence {loss.divergence:.2g}"


def pad_id_of(folder: Path) -> int:
    """The token that a checkpoint pads with."""
    return int(read_config(folder).get("pad_token_id") or 0)


def observe(session: Session, head: Head, encoded: Encoded, *, pad_id: int) -> Observed:
    """Score a session, and keep the rows behind the score."""
    outputs = run_split(session, head, encoded, pad_id=pad_id)
    return Observed(head.score(encoded, outputs.answers), outputs.rows)


def distances(found: Observed, reference: Observed, head: Head) -> tuple[float, float]:
    """Divergence and SQNR in dB of the rows that both kept."""
    return row_distances(list(zip(found.rows, reference.rows, strict=False)), head)


def row_distances(pairs: Sequence[tuple[Array, Array]], head: Head) -> tuple[float, float]:
    """Divergence and SQNR in dB of a candidate's rows from the reference's."""
    noise = signal = 0.0
    for ours, theirs in pairs:
        noise += _energy(ours - theirs)
        signal += _energy(theirs)
    ratio = noise / max(signal, 1e-30)
    sqnr_db = -10.0 * math.log10(max(ratio, 1e-12))  # 120 dB and more, float32's own rounding, are all the same
    if head.rows_are == "vectors":
        return 1.0 - cosine(pairs), sqnr_db
    # A regression's single value is not a distribution: it has no divergence, and the noise stands in for it.
    distance = divergence(pairs) if head.rows_are == "logits" else None
    return ratio if distance is None else distance, sqnr_db


def _energy(values: Array) -> float:
    return float(np.square(values, dtype=np.float64).sum())
