"""Quantization-aware training: a short fine-tune of a model that rounds as INT8 will.

For heads where static INT8 loses too much. The student computes with fake-quantized weights and
activations (Jacob et al., 2018) and learns to answer as the FP32 reference does, which needs no
labels (Hinton et al., 2015; for quantization: Polino et al., 2018, and LLM-QAT, Liu et al., 2023).
The outputs of the layers are matched too, for these say more than a few logits when there are only some
hundred steps (Jiao et al., 2020). Nothing is dropped out, so that student and teacher differ by rounding alone.

What is written is an ordinary FP32 checkpoint, not rounded: `quantize_static` rounds it later. The
weights with the lowest loss on tuning data are kept; where none beat the first ones, those are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from optimize.artifact import Artifact
from optimize.checkpoint import load_model
from optimize.errors import StageError
from optimize.interfaces import Context, Encoded, Facts, Feature, Stage
from optimize.interfaces import Params as StageParams
from optimize.quantization.ranges import Method
from optimize.stages._distillation import Batch, Pair, answer, answers_of, batch_loss, mean_loss, require_alike
from optimize.stages._fake_quantization import Ranges, fake_quantized, find_tables
from optimize.stages._training import (
    first_examples,
    make_batches,
    rate_scale,
    reproducible,
    score_of,
    supply,
    value_of,
)
from optimize.stages.quantize_dynamic import Params as RangeParams
from optimize.stages.quantize_dynamic import choose

GRADIENT_NORM = 1.0


class Params(StageParams):
    """`batch_tokens` bounds a batch's padded tokens, `sample_tokens` those of calibration and of each evaluation.

    `ranges` is the method of `quantize_static`, and has to be the same there: weights learn to live with a
    certain rounding. Ranges are taken anew at each evaluation until the share `freeze_ranges_after` of the steps.
    `train_embedding: false` leaves the tables as they are: rounding hardly touches them, and words that
    training does not show stay in place.
    """

    steps: int = Field(default=200, ge=1)
    batch_size: int = Field(default=16, ge=1)
    batch_tokens: int = Field(default=1024, ge=1)
    learning_rate: float = Field(default=5e-6, gt=0, le=1)
    warmup: float = Field(default=0.1, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    temperature: float = Field(default=2.0, gt=0)
    hidden_weight: float = Field(default=1.0, ge=0)
    train_embedding: bool = False
    ranges: Method = "mse"
    freeze_ranges_after: float = Field(default=0.5, ge=0, le=1)
    evaluate_every: int = Field(default=50, ge=1)
    sample_tokens: int = Field(default=16384, ge=1)
    reduce_range: bool | Literal["auto"] = "auto"


@dataclass(frozen=True)
class Course:
    """A student with fake quantization and its teacher, and what they are asked."""

    pair: Pair
    ranges: Ranges
    params: Params
    context: Context

    def batches(self, features: Sequence[Feature]) -> list[Batch]:
        """Batches of features of similar length."""
        return make_batches(features, self.pair.student, size=self.params.batch_size, tokens=self.params.batch_tokens)


@dataclass
class Outcome:
    """Steps taken, tuning losses by step, the best weights so far with their ranges, and how training ended."""

    steps: int = 0
    losses: dict[int, float] = field(default_factory=dict)
    kept_step: int = 0
    weights: list[Any] = field(default_factory=list)
    bounds: dict[str, tuple[float, float]] = field(default_factory=dict)
    ended: str = "all steps done"


def run(source: Artifact, out: Path, params: Params, context: Context) -> Facts:
    """Write the trained checkpoint in FP32; facts say what it lost by rounding before and after."""
    if not context.training.features:
        raise StageError("train_quantized: there are no training examples; give data with a split to train on")
    chosen = choose(RangeParams(reduce_range=params.reduce_range), context.cpu_features)
    limit = 63 if chosen["reduce_range"] == "yes" else 127
    head, answers = context.head, answers_of(context.head, context.tuning)
    with reproducible(context):
        student, teacher = (load_model(each.path, head.auto_class).eval() for each in (source, context.reference))
        pair = Pair(student, teacher, head, answers, params.temperature)
        if params.hidden_weight:
            require_alike(pair, stage="train_quantized")
        with fake_quantized(student, reads=head.reads, limit=limit, method=params.ranges) as ranges:
            facts = _teach(Course(pair, ranges, params, context))
        student.save_pretrained(out)
    return {**facts, "reduce_range": chosen["reduce_range"], "reduce_range_because": chosen["reduce_range_because"]}


def _teach(course: Course) -> Facts:
    """Calibrate, train, and leave the best weights in the student."""
    head, student = course.context.head, course.pair.student
    tuning = first_examples(course.context.tuning, course.params.sample_tokens)
    try:
        _calibrate(course)
        reference, before = score_of(course.pair.teacher, tuning, head), score_of(student, tuning, head)
        outcome = _train(course, tuning)
    except FloatingPointError as error:
        raise StageError(f"train_quantized: {error}; give a checkpoint whose answers are finite") from error
    after = score_of(student, tuning, head)
    return {
        "steps": outcome.steps,
        "ended": outcome.ended,
        "kept": f"step {outcome.kept_step}" if outcome.kept_step else "the starting weights",
        "kept_step": outcome.kept_step,
        "loss_before": outcome.losses[0],
        "loss_after": outcome.losses[outcome.kept_step],
        "losses": [{"step": step, "loss": loss} for step, loss in outcome.losses.items()],
        "metric": reference.metric,
        "metric_fp32": value_of(reference, reference),
        "metric_before": value_of(before, reference),
        "metric_after": value_of(after, reference),
        "tuning_examples": len(tuning.gold),
        "fake_quantized_inputs": len(course.ranges.bounds),
    }


def _calibrate(course: Course) -> None:
    """Take the ranges from calibration data, with the weights as they are, as `quantize_static` will."""
    import torch

    with torch.no_grad(), course.ranges.watch():
        sample = first_examples(course.context.calibration, course.params.sample_tokens)
        for batch in course.batches(sample.features):
            course.ranges.real = batch.real
            answer(course.pair.student, batch, course.context.head)


def _train(course: Course, tuning: Encoded) -> Outcome:
    """Up to `steps` steps; afterwards the student has the weights and ranges with the lowest loss on tuning data."""
    import torch

    params, context = course.params, course.context
    trained = _trained(course)
    optimizer = torch.optim.AdamW(trained, lr=params.learning_rate, weight_decay=params.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_scale(step, params.steps, params.warmup))
    questions = course.batches(tuning.features)
    outcome = Outcome()
    if not _judge(course, questions, trained, outcome):
        raise FloatingPointError("the loss is not finite before training")
    lessons = supply(course.batches(context.training.features), seed=context.seed)
    for step in range(1, params.steps + 1):
        sound = _step(course, next(lessons), optimizer)
        schedule.step()
        outcome.steps += sound
        if sound and (step % params.evaluate_every == 0 or step == params.steps):
            sound = _judge(course, questions, trained, outcome)
        if not sound:
            outcome.ended = f"diverged at step {step}"
            break
        context.progress.step("train", step, params.steps)
    _put_back(course, trained, outcome)
    return outcome


def _trained(course: Course) -> list[Any]:
    """The parameters to train: all, or all but the tables."""
    student = course.pair.student
    for table in [] if course.params.train_embedding else find_tables(student):
        table.weight.requires_grad_(False)
    return [parameter for parameter in student.parameters() if parameter.requires_grad]


def _step(course: Course, batch: Batch, optimizer: Any) -> bool:
    """Learn from one batch; False, and nothing learnt, where loss or gradient are not finite."""
    import torch

    optimizer.zero_grad()
    try:
        loss = batch_loss(course.pair, batch, hidden_weight=course.params.hidden_weight)
    except FloatingPointError:
        return False
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(course.pair.student.parameters(), GRADIENT_NORM)
    if not (math.isfinite(loss.item()) and math.isfinite(norm.item())):
        return False
    optimizer.step()
    return True


def _judge(course: Course, questions: Sequence[Batch], trained: Sequence[Any], outcome: Outcome) -> bool:
    """Note the loss after this many steps, and keep the weights if none was lower; False if it is not finite."""
    params = course.params
    try:
        if 0 < outcome.steps <= params.freeze_ranges_after * params.steps:
            _calibrate(course)
        loss = mean_loss(course.pair, questions)
    except FloatingPointError:
        return False
    if not math.isfinite(loss):
        return False
    outcome.losses[outcome.steps] = loss
    if loss == min(outcome.losses.values()):
        outcome.kept_step = outcome.steps
        outcome.weights = [parameter.detach().clone() for parameter in trained]
        outcome.bounds = dict(course.ranges.bounds)
    return True


def _put_back(course: Course, trained: Sequence[Any], outcome: Outcome) -> None:
    import torch

    course.ranges.bounds = outcome.bounds
    with torch.no_grad():
        for parameter, kept in zip(trained, outcome.weights, strict=True):
            parameter.copy_(kept)


STAGE = Stage(
    run=run,
    params=Params,
    takes="torch",
    gives="torch",
    needs=("torch", "transformers"),
    summary="Fine-tune with INT8 rounding, towards the FP32 reference's answers",
    depends=frozenset({"cpu_features", "training"}),
)
