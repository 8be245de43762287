"""Quantization-aware training: a short fine-tune of a model that rounds as INT8 will.

For heads where static INT8 loses too much. The student computes with fake-quantized weights and
activations (Jacob et al., 2018) and learns to answer as the FP32 reference does, which needs no
labels (Hinton et al., 2015; for quantization: Polino et al., 2018, and LLM-QAT, Liu et al., 2023).
The outputs of the layers are matched too, for these hold more than a few logits do when there are only some
hundred steps (Jiao et al., 2020). Nothing is dropped out, so that student and teacher differ by rounding alone.

What is written is an ordinary FP32 checkpoint, not rounded: `quantize_static` rounds it later. The
weights with the lowest loss on tuning data are kept; where none beat the first ones, those are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from optimize.artifact import Artifact
from optimize.checkpoint import load_model, save_model
from optimize.errors import StageError
from optimize.interfaces import Context, Encoded, Facts, Feature, Stage, Traits
from optimize.interfaces import Params as StageParams
from optimize.quantization.fake import Ranges, fake_quantized
from optimize.quantization.ranges import Method
from optimize.quantization.weights import choose_range
from optimize.training.batches import (
    Batch,
    answer,
    answers_of,
    make_batches,
    reproducible,
    score_of,
    trained_parameters,
    value_of,
)
from optimize.training.distillation import Pair, Weights, batch_loss, mean_loss, require_alike
from optimize.training.loop import Plan, facts_of, train
from optimize.training.state import Learner, TrainingState


class Params(StageParams):
    """What is learned, how fast, and how INT8's rounding is imitated."""

    steps: int = Field(default=200, ge=1, description="Training steps.")
    batch_size: int = Field(default=16, ge=1, description="Examples in a batch, at most.")
    batch_tokens: int = Field(default=1024, ge=1, description="Padded tokens in a batch, at most. It bounds memory.")
    learning_rate: float = Field(
        default=5e-6, gt=0, le=1, description="Highest learning rate. It rises over `warmup` and then falls to zero."
    )
    warmup: float = Field(default=0.1, ge=0, lt=1, description="Share of the steps over which the rate rises.")
    weight_decay: float = Field(
        default=0.0,
        ge=0,
        description="Decay of the weights of linear maps, as AdamW does it. Biases and LayerNorms do not decay.",
    )
    temperature: float = Field(
        default=2.0,
        gt=0,
        description="Divides the logits of teacher and student before they are compared. Higher ones weigh what is "
        "unlikely more.",
    )
    hidden_weight: float = Field(
        default=1.0,
        ge=0,
        description="Weight of the loss on the layers' outputs, beside that on the answers; 0 leaves it out.",
    )
    train_embedding: bool = Field(
        default=False,
        description="Whether the embedding tables learn as well. Rounding hardly touches them, and left alone, "
        "words that training does not show stay in place.",
    )
    ranges: Method = Field(
        default="mse",
        description="How ranges of activations are chosen. Has to be the `method` of `quantize_static` behind it: "
        "weights learn to live with one rounding.",
    )
    freeze_ranges_after: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Share of the steps after which ranges no longer change. Until then they are taken anew at each "
        "evaluation.",
    )
    evaluate_every: int = Field(
        default=50, ge=1, description="Steps between two measurements of the loss on tuning data."
    )
    sample_tokens: int = Field(
        default=16384,
        ge=1,
        description="Tokens, at most, of calibration data for ranges and of tuning data for each evaluation.",
    )
    reduce_range: bool | Literal["auto"] = Field(
        default="auto",
        description="Imitate weights of 7 bits, as on CPUs whose sums of 16 bits could overflow. `auto` does so "
        "where the CPU has neither VNNI nor AMX.",
    )


@dataclass(frozen=True)
class QuantizedTraining:
    """A student with fake quantization and its teacher, and how they are trained."""

    pair: Pair
    ranges: Ranges
    params: Params
    context: Context

    def batches(self, features: Sequence[Feature]) -> list[Batch]:
        """Batches of features of similar length."""
        return make_batches(features, self.pair.student, size=self.params.batch_size, tokens=self.params.batch_tokens)


def run(source: Artifact, out: Path, params: Params, context: Context) -> Facts:
    """Write the trained checkpoint in FP32; facts say what it lost by rounding before and after."""
    if not context.training.features:
        raise StageError("train_quantized: there are no training examples; give data with a split to train on")
    reduced, because = choose_range(params.reduce_range, context.cpu_features)
    limit = 63 if reduced else 127
    head, answers = context.head, answers_of(context.head, context.tuning)
    with reproducible(context.seed, context.threads):
        student = load_model(source.path, head.auto_class).eval()
        teacher = load_model(context.reference.path, head.auto_class).eval()
        pair = Pair(student, teacher, head, answers, params.temperature)
        if params.hidden_weight:
            require_alike(pair, stage="train_quantized")
        with fake_quantized(student, reads=head.reads, limit=limit, method=params.ranges) as ranges:
            facts = _train_and_score(QuantizedTraining(pair, ranges, params, context))
        save_model(student, out)
    return {**facts, "reduce_range": reduced, "reduce_range_because": because}


def _train_and_score(work: QuantizedTraining) -> Facts:
    """Calibrate, train, and leave the best weights in the student."""
    head, student = work.context.head, work.pair.student
    tuning = work.context.tuning.first(tokens=work.params.sample_tokens)
    try:
        _calibrate(work)
        reference, before = score_of(work.pair.teacher, tuning, head), score_of(student, tuning, head)
        state = _train(work, tuning)
    except FloatingPointError as error:
        raise StageError(f"train_quantized: {error}; give a checkpoint whose answers are finite") from error
    after = score_of(student, tuning, head)
    return {
        **facts_of(state),
        "metric": reference.metric,
        "metric_fp32": value_of(reference, reference),
        "metric_before": value_of(before, reference),
        "metric_after": value_of(after, reference),
        "tuning_examples": len(tuning.gold),
        "fake_quantized_inputs": len(work.ranges.bounds),
    }


def _calibrate(work: QuantizedTraining) -> None:
    """Take the ranges from calibration data, with the weights as they are, as `quantize_static` will."""
    import torch

    sample = work.context.calibration.first(tokens=work.params.sample_tokens)
    with torch.no_grad(), work.ranges.watch():
        for batch in work.batches(sample.features):
            work.ranges.real = batch.real
            answer(work.pair.student, batch, work.context.head)


def _train(work: QuantizedTraining, tuning: Encoded) -> TrainingState:
    """Up to `steps` steps; afterwards the student has the weights and ranges with the lowest loss on tuning data."""
    params, context, ranges = work.params, work.context, work.ranges
    tuning_batches = work.batches(tuning.features)

    def evaluate(step: int) -> float:
        # Later the ranges stay, so that the weights can settle under a rounding that no longer moves.
        if 0 < step <= params.freeze_ranges_after * params.steps:
            _calibrate(work)
        return mean_loss(work.pair, tuning_batches)

    learner = Learner(
        parameters=trained_parameters(work.pair.student, tables=params.train_embedding),
        loss=lambda batch: batch_loss(work.pair, batch, Weights(hidden=params.hidden_weight)),
        evaluate=evaluate,
        extra=lambda: dict(ranges.bounds),
        restore=lambda bounds: setattr(ranges, "bounds", dict(bounds)),
    )
    plan = Plan(params.steps, params.learning_rate, params.warmup, params.weight_decay, params.evaluate_every)
    return train(learner, plan, work.batches(context.training.features), context)


STAGE = Stage(
    run=run,
    params=Params,
    takes="torch",
    gives="torch",
    needs=("torch", "transformers"),
    summary="Fine-tune with INT8 rounding, towards the FP32 reference's answers",
    depends=lambda _: frozenset({"cpu_features", "training"}),
    traits=lambda _: Traits(refuses={"sparse": "it would fill the zeros: put it before, or leave one of them out"}),
)
