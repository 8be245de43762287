"""Distillation: a model that lost something, by pruning above all, learns to answer as the FP32 reference does.

The loss is DistilBERT's own three (Sanh et al., 2019): the teacher's softened answers, the right answers, and the
direction of the hidden states. Two things differ. The states of every layer are compared, with those of the teacher's
layer that it stands for: its own, or where pruning dropped layers behind it, the last of them. And labels are optional,
since the other two need none. Nothing is dropped out: the student is smaller than what it learns from, and more data
help it more than noise does.

The layers' sizes stay as they are. The weights that diverge least from the reference on tuning data are kept, the
first ones where none are better. One process or several learn (`torchrun --nproc_per_node 2 -m optimize run ...`,
through accelerate), on CPUs or GPUs; a killed run goes on where it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, ValidationInfo, field_validator

from optimize.artifact import Artifact
from optimize.checkpoint import load_model, save_model
from optimize.errors import StageError
from optimize.evaluate.judge import Judge, Loss, make_judge
from optimize.interfaces import Context, Facts, Stage, Traits
from optimize.interfaces import Params as StageParams
from optimize.training.batches import Batch, answers_of, make_labelled, reproducible, session_of, trained_parameters
from optimize.training.distillation import Pair, Weights, batch_loss, require_alike
from optimize.training.loop import Plan, facts_of, train
from optimize.training.state import Learner, TrainingState

if TYPE_CHECKING:
    from accelerate import Accelerator

TOO_FAR = 10.0
"""Training has failed where the divergence is so many times the first one: a setback is smaller."""


class Params(StageParams):
    """What is learned, how fast, and when to stop."""

    epochs: float = Field(
        default=3.0,
        gt=0,
        description="How often the training examples are shown. More recovers more and takes longer; fractions are "
        "fine.",
    )
    examples: int | None = Field(
        default=None,
        ge=1,
        description="Training examples that are used. Left out, all that the run has (`--training-examples`).",
    )
    order: int = Field(
        default=0,
        ge=0,
        description="Which of the random orders examples come in. Stages in a row that see a part of them each learn "
        "more from different ones.",
    )
    batch_size: int = Field(default=32, ge=1, description="Examples in a batch, at most.")
    batch_tokens: int = Field(
        default=2048, ge=1, description="Padded tokens in a batch, at most. It bounds memory where texts are long."
    )
    learning_rate: float = Field(
        default=5e-5,
        gt=0,
        le=1,
        description="Highest learning rate. At 2e-4 a fitted model first moved away from where pruning had left it; "
        "5e-5 did not (SST-2, 40 % of the operations).",
    )
    warmup: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="Share of the steps over which the rate rises. It then falls to zero by the last step, or by "
        "`max_minutes` where that comes first.",
    )
    weight_decay: float = Field(
        default=0.01,
        ge=0,
        description="Decay of the weights of linear maps, as AdamW does it. Biases and LayerNorms do not decay.",
    )
    temperature: float = Field(
        default=2.0,
        gt=0,
        description="Divides the logits of teacher and student before they are compared. Higher ones weigh what is "
        "unlikely more.",
    )
    soft_weight: float = Field(
        default=1.0, ge=0, description="Weight of the loss on the teacher's softened answers; 0 leaves it out."
    )
    label_weight: float = Field(
        default=0.1,
        ge=0,
        description="Weight of the loss on the right answers, where the data have labels; 0 leaves it out.",
    )
    hidden_weight: float = Field(
        default=1.0,
        ge=0,
        validate_default=True,
        description="Weight of the loss on the direction of each layer's hidden states; 0 leaves it out. One of the "
        "three weights has to be above 0.",
    )
    train_embedding: bool = Field(
        default=False,
        description="Whether the embedding tables learn as well. Pruning does not touch them, and left alone, words "
        "that training does not show stay in place.",
    )
    evaluate_every: int = Field(
        default=100, ge=1, description="Steps between two measurements of the divergence on tuning data."
    )
    patience: int = Field(
        default=10, ge=1, description="Measurements in a row without a lower divergence after which training ends."
    )
    tuning_tokens: int = Field(
        default=32_768,
        ge=1,
        description="Tokens of tuning data, at most, on which divergence is measured while training.",
    )
    max_minutes: float | None = Field(
        default=None,
        gt=0,
        description="Minutes after which training ends. The learning rate reaches zero by then. Left out, there is "
        "no limit.",
    )
    save_every: int = Field(
        default=100, ge=1, description="Steps after which the state is saved, so that a killed run goes on from there."
    )

    @field_validator("hidden_weight")
    @classmethod
    def _learns_from_something(cls, weight: float, info: ValidationInfo) -> float:
        if not (weight or info.data.get("soft_weight", 1) or info.data.get("label_weight", 1)):
            raise ValueError("all three losses count 0; give one of them a weight, such as 'soft_weight: 1'")
        return weight


@dataclass(frozen=True)
class Distillation:
    """A student and its teacher, the batches to learn from, and the judge of how well the student does."""

    pair: Pair
    batches: Sequence[Batch]
    judge: Judge
    accelerator: Accelerator
    params: Params
    context: Context

    def loss(self) -> Loss:
        """What the student, as it is, lost on tuning data."""
        return self.judge.assess(session_of(self.pair.student, self.context.head))


def run(source: Artifact, out: Path, params: Params, context: Context) -> Facts:
    """Write the trained checkpoint; facts say what it lost on tuning data before and after."""
    import torch
    from accelerate import Accelerator

    training = context.training.first(examples=params.examples)
    if not training.features:
        raise StageError("distill: there are no training examples; give data with a split to train on")
    with reproducible(context.seed, context.threads):
        accelerator = Accelerator(cpu=not torch.accelerator.is_available())
        student = load_model(source.path, context.head.auto_class).eval()
        teacher = load_model(context.reference.path, context.head.auto_class).eval()
        answers = answers_of(context.head, training)
        pair = Pair(student, teacher, context.head, answers, params.temperature)
        if params.hidden_weight:
            require_alike(pair, stage="distill")
        batches = make_labelled(training, student, answers, size=params.batch_size, tokens=params.batch_tokens)
        student.to(accelerator.device)
        teacher.to(accelerator.device)
        judge = make_judge(context, session_of(teacher, context.head), tokens=params.tuning_tokens)
        facts = _distill(Distillation(pair, batches, judge, accelerator, params, context))
        save_model(student.cpu(), out)
    return {**facts, "labels": _labels(batches, params), "training_examples": len(training.gold)}


def _distill(work: Distillation) -> Facts:
    """Train, and leave the best weights in the student."""
    judge, params, losses = work.judge, work.params, {0: work.loss()}
    try:
        state = _train(work, losses)
    except FloatingPointError as error:
        raise StageError(f"distill: {error}; give a checkpoint whose answers are finite") from error
    # After a kill, the loss of the best weights may be one that an earlier process took.
    before, after = losses[0], losses.get(state.kept_step) or work.loss()
    processes = work.accelerator.num_processes
    return {
        **facts_of(state),
        "epochs": round(state.steps * processes / len(work.batches), 3),
        "metric": judge.reference.score.metric,
        "metric_before": before.metric,
        "relative_drop_before": before.relative_drop,
        **judge.facts(after),
        "temperature": params.temperature,
        "device": work.accelerator.device.type,
        "processes": processes,
    }


def _train(work: Distillation, losses: dict[int, Loss]) -> TrainingState:
    """Train, and note what was lost after how many steps beside the start, which is there."""
    params, accelerator = work.params, work.accelerator

    def evaluate(step: int) -> float:
        if step not in losses:
            losses[step] = work.loss()
        return losses[step].divergence

    weights = Weights(params.soft_weight, params.label_weight, cosine=params.hidden_weight)
    learner = Learner(
        parameters=trained_parameters(work.pair.student, tables=params.train_embedding),
        loss=lambda batch: batch_loss(work.pair, batch.on(accelerator.device), weights),
        evaluate=evaluate,
        accelerator=accelerator,
        name="distill",
    )
    plan = plan_of(params, len(work.batches), accelerator.num_processes)
    return train(learner, plan, work.batches, work.context)


def plan_of(params: Params, batches: int, processes: int) -> Plan:
    """The steps that so many epochs take, shared by all processes, and what else the loop is to keep to."""
    return Plan(
        steps=max(1, round(params.epochs * batches / processes)),
        learning_rate=params.learning_rate,
        warmup=params.warmup,
        weight_decay=params.weight_decay,
        evaluate_every=params.evaluate_every,
        patience=params.patience,
        too_far=TOO_FAR,
        max_minutes=params.max_minutes,
        save_every=params.save_every,
        order=params.order,
    )


def _labels(batches: Sequence[Batch], params: Params) -> str:
    """Whether the loss used labels."""
    if not params.label_weight:
        return "not used"
    known = sum(batch.labels is not None for batch in batches)
    return "used" if known else "none: soft targets and hidden states alone"


STAGE = Stage(
    run=run,
    params=Params,
    takes="torch",
    gives="torch",
    needs=("accelerate", "torch", "transformers"),
    summary="Let a pruned model learn from the FP32 reference what pruning took",
    depends=lambda _: frozenset({"training"}),
    traits=lambda _: Traits(refuses={"sparse": "it would fill the zeros: put it before, or leave one of them out"}),
)
