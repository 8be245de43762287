"""What a pruned checkpoint lost on tuning data, as the stages that prune state it."""

from __future__ import annotations

from optimize.evaluate.judge import Loss

Row = dict[str, int | float | str]


def lost(loss: Loss, *, prefix: str) -> Row:
    """What was lost on tuning data against the FP32 reference."""
    return {
        f"{prefix}_metric": loss.metric,
        f"{prefix}_relative_drop": loss.relative_drop,
        f"{prefix}_agreement": loss.agreement,
        f"{prefix}_divergence": loss.divergence,
    }
