"""What a pruned checkpoint lost on tuning data, as the stages that prune state it."""

from __future__ import annotations

from pathlib import Path

from optimize.interfaces import Context, Facts
from optimize.quantization.judge import Judge


def lost(judge: Judge, folder: Path, context: Context, *, prefix: str) -> Facts:
    """What a checkpoint lost on tuning data against the FP32 reference."""
    loss = judge.assess(context.open("torch", folder))
    facts: Facts = {
        f"{prefix}_metric": loss.metric,
        f"{prefix}_relative_drop": loss.relative_drop,
        f"{prefix}_agreement": loss.agreement,
        f"{prefix}_divergence": loss.divergence,
    }
    return facts if prefix == "untuned" else {"tuning_examples": len(judge.encoded.gold), **facts}
