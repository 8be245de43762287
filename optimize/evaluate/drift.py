"""How far outputs moved from the reference's, and how much they depend on padding and batch mates.

A task metric can stay while decisions change on both sides, and a model that answers the same
text differently in another batch is hard to trust: both are seen here, neither in the metric.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from optimize.errors import StageError
from optimize.evaluate.predict import MAX_BATCH, choices, collate, own_outputs, token_limit
from optimize.interfaces import Array, Feature, Head, Score, Session
from optimize.manifest import Drift

PROBES = 16
EXTRA_PADDING = 32


@dataclass(frozen=True)
class Observed:
    """What a model scored, and the rows of the first features (`Outputs.rows`) behind it."""

    score: Score
    rows: Sequence[Array]


def measure_drift(
    candidate: Observed,
    reference: Observed,
    *,
    head: Head,
    padding_max_abs: float,
    batch_max_abs: float,
    left_out: int = 0,
) -> Drift:
    """Compare decisions, and the rows behind them where both models' were kept.

    `left_out` is how many examples `alike` took the rows of; where it took all, what rows tell is None.
    `flips` is the share of `decisions` without agreement, as a number; where the score is
    ordinal, the decisions are pairs of examples and agreement is that of their order.
    """
    pairs = list(zip(candidate.rows, reference.rows, strict=False))
    if not (pairs or left_out) or any(ours.shape != theirs.shape for ours, theirs in pairs):
        raise StageError("drift: the rows of candidate and reference differ in shape; run both on the same features")
    agreement, flips, decisions = agree(candidate.score, reference.score)
    max_abs, mean_abs = distances(pairs) if pairs else (None, None)
    return Drift(
        agreement=agreement,
        flips=flips,
        decisions=decisions,
        kl=divergence(pairs) if head.rows_are == "logits" else None,
        cosine=cosine(pairs) if head.rows_are == "vectors" and pairs else None,
        max_abs=max_abs,
        mean_abs=mean_abs,
        padding_max_abs=padding_max_abs,
        batch_max_abs=batch_max_abs,
        compared=len(pairs),
        left_out=left_out,
    )


def alike(
    candidate: tuple[Observed, Sequence[Feature]], reference: tuple[Observed, Sequence[Feature]]
) -> tuple[Observed, Observed, int]:
    """Both with the rows of those examples alone that gave rows of the same shapes, and how many did not.

    That is for models with tokenizers of their own, under which a text may have other numbers of tokens.
    """
    ours, theirs = _by_example(*candidate), _by_example(*reference)
    our_rows: list[Array] = []
    their_rows: list[Array] = []
    left_out = 0
    for example, rows in theirs.items():
        if example not in ours:
            continue  # one of the last, whose rows were kept on one side alone
        if _shapes(ours[example]) == _shapes(rows):
            our_rows += ours[example]
            their_rows += rows
        else:
            left_out += 1
    return replace(candidate[0], rows=our_rows), replace(reference[0], rows=their_rows), left_out


def _by_example(observed: Observed, features: Sequence[Feature]) -> dict[int, list[Array]]:
    """The rows that were kept, those of the first features, by their example."""
    found: dict[int, list[Array]] = {}
    for row, feature in zip(observed.rows, features, strict=False):
        found.setdefault(feature.example, []).append(row)
    return found


def _shapes(rows: Sequence[Array]) -> list[tuple[int, ...]]:
    return [row.shape for row in rows]


def agree(candidate: Score, reference: Score) -> tuple[float, int, int]:
    """Agreement, flips and decisions; orderings agree by (1 + Kendall's tau-b) / 2."""
    return agree_on(candidate.decisions, reference.decisions, ordinal=reference.ordinal)


def agree_on(ours: Array, theirs: Array, *, ordinal: bool) -> tuple[float, int, int]:
    """The same of decisions by themselves; where `ordinal`, it is their order that counts."""
    if len(ours) != len(theirs) or not (len(theirs) or ordinal):
        raise StageError(f"drift: {len(ours)} decisions beside {len(theirs)}; run both models on the same features")
    if ordinal:
        # tau is the share of pairs in the same order minus that of pairs in opposite order, from -1 to 1.
        decisions = len(theirs) * (len(theirs) - 1) // 2
        agreement = (1.0 + _tau(ours, theirs)) / 2.0
        return agreement, round((1.0 - agreement) * decisions), decisions
    flips = int((ours != theirs).sum())
    return 1.0 - flips / len(theirs), flips, len(theirs)


def _tau(ours: Array, theirs: Array) -> float:
    """Kendall's tau-b; 1 or 0 where both sides or one are constant, -1 where a value is not finite."""
    import numpy as np
    from scipy.stats import kendalltau

    if len(theirs) < 2:
        return 1.0
    ours_constant, theirs_constant = bool(np.all(ours == ours[0])), bool(np.all(theirs == theirs[0]))
    if ours_constant or theirs_constant:
        # tau-b divides by the pairs that either side orders, of which there are none.
        return 1.0 if ours_constant and theirs_constant else 0.0
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        return -1.0
    return float(kendalltau(ours, theirs).statistic)


def distances(pairs: Sequence[tuple[Array, Array]]) -> tuple[float, float]:
    """Largest and mean absolute difference over all values; equal infinities differ by 0."""
    import numpy as np

    largest, total, count = 0.0, 0.0, 0
    for ours, theirs in pairs:
        # inf - inf is NaN and a warning, though equal infinities are alike; any other NaN has to stay.
        with np.errstate(invalid="ignore"):
            gap = np.where(ours == theirs, 0.0, np.abs(ours - theirs))
        largest = float(np.maximum(largest, gap.max(initial=0.0)))
        total, count = total + float(gap.sum(dtype=np.float64)), count + gap.size
    return largest, total / max(count, 1)


def divergence(pairs: Sequence[tuple[Array, Array]]) -> float | None:
    """Mean over rows of KL(reference || candidate) in nats; None for rows of a single value."""
    import numpy as np

    total, count = 0.0, 0
    for ours, theirs in pairs:
        if theirs.shape[-1] < 2 or not theirs.size:
            continue
        # KL(P || Q) = sum p ln(p / q), P being the reference and Q the candidate.
        log_q, log_p = _log_softmax(ours), _log_softmax(theirs)
        p = np.exp(log_p)
        # A class that P rules out adds nothing, whatever Q says: 0 ln 0 is 0, and not NaN.
        with np.errstate(invalid="ignore"):
            total += float(np.where(p > 0, p * (log_p - log_q), 0.0).sum())
        count += theirs.size // theirs.shape[-1]
    return total / count if count else None


def _log_softmax(rows: Array) -> Array:
    import numpy as np

    # Without the shift a logit of 710 would overflow.
    shifted = rows.astype(np.float64) - rows.max(axis=-1, keepdims=True)
    found: Array = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return found


def cosine(pairs: Sequence[tuple[Array, Array]]) -> float:
    """Mean over rows of the cosine between candidate and reference."""
    import numpy as np

    found = []
    for ours, theirs in pairs:
        lengths = np.linalg.norm(ours, axis=-1) * np.linalg.norm(theirs, axis=-1)
        found.append(np.ravel(np.sum(ours * theirs, axis=-1) / np.maximum(lengths, 1e-12)))
    return float(np.concatenate(found).mean())


def invariance(
    session: Session, head: Head, features: Sequence[Feature], *, pad_id: int, max_tokens: int
) -> tuple[float, float]:
    """How much outputs move by padding, and by batch mates: largest absolute differences.

    Up to 16 features, spread over lengths: each alone beside alone with 32 more tokens of padding
    (as far as `max_tokens` allows), and beside itself in batches of up to 8 of mixed lengths.
    """
    picked = spread(features, PROBES)
    limit = token_limit(session, head, picked, pad_id=pad_id)

    def rows(group: Sequence[Feature], tokens: int | None = None) -> list[Array]:
        outputs = session(collate(group, pad_id=pad_id, tokens=tokens))
        return [head.read(one, own_outputs(outputs, i, one, head=head)) for i, one in enumerate(group)]

    alone: dict[int, Array] = {}  # by the feature's id, since features cannot be hashed
    padded: list[tuple[Array, Array]] = []
    for one in picked:
        alone[id(one)] = rows([one])[0]
        # A text that is as long as the model takes has no room for padding, and is compared with itself.
        width = max(one.tokens, min(one.tokens + EXTRA_PADDING, max_tokens))
        padded.append((alone[id(one)], rows([one], width)[0]))
    batched: list[tuple[Array, Array]] = []
    for group in mixed_batches(picked, tokens=limit):
        for one, found in zip(group, rows(group), strict=True):
            batched.append((alone[id(one)], found))
    return distances(padded)[0], distances(batched)[0]


def spread(features: Sequence[Feature], count: int) -> list[Feature]:
    """Up to `count` features from shortest to longest, evenly spread over the sorted lengths."""
    order = sorted(features, key=lambda feature: feature.tokens)
    if len(order) <= count:
        return order
    return [order[round(step * (len(order) - 1) / (count - 1))] for step in range(count)]


def mixed_batches(features: Sequence[Feature], *, tokens: int) -> Iterator[list[Feature]]:
    """Deal sorted features out to batches of up to 8 that each mix short and long ones."""
    by_choices: dict[int, list[Feature]] = {}
    for feature in features:
        by_choices.setdefault(choices(feature), []).append(feature)
    for _, together in sorted(by_choices.items()):
        # As many to a batch as fit if each were as long as the longest, which pads all of its batch.
        longest = max(feature.all_tokens for feature in together)
        size = max(1, min(MAX_BATCH, tokens // longest))
        batches = math.ceil(len(together) / size)
        for first in range(batches):
            yield together[first::batches]  # they are sorted: each batch gets short and long ones
