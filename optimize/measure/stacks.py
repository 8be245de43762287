"""How long models take on a target whose layers have other sizes: what layers cost, for stages that trade them.

Weights are random and the vocabulary is small: neither changes what a layer takes. Each model is converted as the
target's own FP32 reference is, and timed like any engine, in a process of its own and in turns with the others.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from optimize.artifact import Artifact, copy_companions, seal
from optimize.checkpoint import LayerSize, class_of, note_sizes, read_config, resize_layers, save_model
from optimize.errors import StageError
from optimize.evaluate.predict import choices
from optimize.interfaces import Context, Params, Stack, Target
from optimize.measure.latency import Engine, Settings, measure_latency
from optimize.measure.workload import Workload, why_not
from optimize.stages import STAGES

VOCABULARY, PAD_ID = 1000, 0
SMALL = {"vocab_size": VOCABULARY, "pad_token_id": PAD_ID}


def time_stacks(
    stacks: Sequence[Stack], tokens: int, *, target: Target, runtime: Params, context: Context
) -> list[float]:
    """Median seconds of each model at 1 x `tokens`; stacks are layers as (heads, neurons).

    Raises StageError where the model does not take so many tokens.
    """
    config, shape = {**read_config(context.reference.path), **SMALL}, f"1x{tokens}"
    workload = Workload(
        (),
        VOCABULARY,
        config["max_position_embeddings"],
        pad_id=PAD_ID,
        seed=context.seed,
        choices=min(choices(context.calibration.features[0]), 1),  # layers see choices as a longer batch
    )
    if reason := why_not(shape, workload):
        raise StageError(f"layers to time: {shape} is {reason}; lower 'tokens'")
    with tempfile.TemporaryDirectory() as folder:
        engines, head = [], context.head
        for done, stack in enumerate(stacks):
            artifact = _convert(_write(config, stack, Path(folder) / f"{done}", context), target, context)
            engines.append(Engine(f"stack {done}", target.name, artifact, head.name, runtime, head.code))
            context.progress.step("layers to time", done + 1, len(stacks))
        settings = Settings(context.threads)
        found = measure_latency(
            engines, [shape], references=(), workload=workload, settings=settings, progress=context.progress
        )
    return [found[engine.name].latency[0].p50_ms / 1000 for engine in engines]


def _write(config: Mapping[str, object], stack: Stack, folder: Path, context: Context) -> Artifact:
    """A checkpoint with random weights whose layers have these sizes, and the files that lie beside the reference."""
    import torch
    from transformers import DistilBertConfig

    sizes = [LayerSize(*size) for size in stack]
    changed = {**config, "n_layers": len(sizes)}
    with torch.random.fork_rng(devices=[]):  # the stage's own random numbers stay what they were
        torch.manual_seed(context.seed)
        model = class_of(config, context.head.auto_class, where="layers to time")(DistilBertConfig(**changed))
        resize_layers(model, sizes)
    note_sizes(model.config, sizes)
    save_model(model, folder)
    copy_companions(context.reference.path, "torch", folder)
    return seal(folder, "torch")


def _convert(artifact: Artifact, target: Target, context: Context) -> Artifact:
    """What the target's own FP32 reference makes of a checkpoint."""
    shown = replace(context, reference=artifact)
    for number, (name, params) in enumerate(target.reference):
        stage, out = STAGES[name], artifact.path.parent / f"{artifact.path.name}-{number}"
        out.mkdir()
        stage.run(artifact, out, stage.params(**params), shown)
        copy_companions(artifact.path, artifact.kind, out)
        artifact = seal(out, stage.gives)
    return artifact
