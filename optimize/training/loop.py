"""The loop of every stage that trains: steps, a rate that rises and falls, and the best weights on tuning data kept.

Training ends when its steps are done, when nothing got better for a while, when its time is up, or when it diverges;
in each case the weights with the lowest loss on tuning data are put back, the first ones included. Where the context
has a scratch folder, everything that the next step depends on is saved there now and then, so that a process that was
killed goes on to the same end. Among several processes each takes batches of its own and the gradients are averaged;
all of them hold the same weights at any time.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optimize.interfaces import Context, Facts
from optimize.training.batches import Batch, endless_batches
from optimize.training.state import Learner, TrainingState, load_state, save_state

if TYPE_CHECKING:
    from torch.optim import Optimizer

GRADIENT_NORM = 1.0
LOW = 0.01
"""A first loss below this says nothing of what divergence is: many times of it is still little."""


@dataclass(frozen=True)
class Plan:
    """How long to train, and how fast.

    `patience` is how many evaluations may pass without a lower loss. A loss above `too_far` times the first one counts
    as diverged, unless that was below `LOW`. With `max_minutes`, the rate falls to zero by
    whatever comes first, steps or time. `order` is one of the random orders that batches can come in.
    """

    steps: int
    learning_rate: float
    warmup: float
    weight_decay: float
    evaluate_every: int
    patience: int | None = None
    too_far: float = math.inf
    max_minutes: float | None = None
    save_every: int = 50
    order: int = 0


def train(learner: Learner, plan: Plan, batches: Sequence[Batch], context: Context) -> TrainingState:
    """Train the learner's parameters in place; raises FloatingPointError where the first loss is not finite."""
    optimizer, state = _make_optimizer(learner, plan), TrainingState()
    if load_state(context, learner, optimizer, state):
        context.progress.say(f"{learner.name}: goes on after step {state.steps}")
    elif not _evaluate(learner, state):
        raise FloatingPointError("the loss is not finite before training")
    own_batches = _own_batches(learner, batches, context.seed + plan.order, done=state.steps)
    started = time.monotonic() - state.seconds
    while not state.ended:
        step, total = state.steps + 1, expected_steps(state, plan)
        # Where time runs short the total shrinks as training goes, which no scheduler of torch's allows for.
        for group in optimizer.param_groups:
            group["lr"] = plan.learning_rate * rate_scale(step - 1, total, plan.warmup)
        learnt = _train_step(learner, next(own_batches), optimizer)
        state.steps += learnt
        state.seconds = _least_of_all(learner, time.monotonic() - started)
        ending = _reason_to_end(state, plan)
        diverged = not learnt
        if learnt and (step % plan.evaluate_every == 0 or ending):
            diverged = not _evaluate(learner, state, too_far=plan.too_far)
        state.ended = f"diverged at step {step}" if diverged else ending or _patience_lost(state, plan)
        context.progress.step(learner.name, step, step if state.ended else total)
        if step % plan.save_every == 0 and not state.ended:
            save_state(context, learner, optimizer, state)
    _restore_best(learner, state)
    return state


def facts_of(state: TrainingState) -> Facts:
    """What a stage states of its training."""
    return {
        "steps": state.steps,
        "ended": state.ended,
        "kept": f"step {state.kept_step}" if state.kept_step else "the starting weights",
        "kept_step": state.kept_step,
        "loss_before": state.losses[0],
        "loss_after": state.losses[state.kept_step],
        "losses": [{"step": step, "loss": loss} for step, loss in state.losses.items()],
    }


def rate_scale(step: int, steps: int, warmup: float) -> float:
    """Rise linearly over the share `warmup` of the steps, then fall linearly towards zero."""
    rising = max(1, round(warmup * steps))
    return min((step + 1) / rising, (steps - step) / max(1, steps - rising))


def expected_steps(state: TrainingState, plan: Plan) -> int:
    """How many steps there will be: all, or as many as the time is enough for at the pace so far."""
    if plan.max_minutes is None or not state.steps:
        return plan.steps
    affordable = state.steps * 60.0 * plan.max_minutes / max(state.seconds, 1e-9)
    return min(plan.steps, max(state.steps + 1, int(affordable)))


def _reason_to_end(state: TrainingState, plan: Plan) -> str:
    """Why no further step is planned; empty where one is."""
    if state.steps >= plan.steps:
        return "all steps done"
    if plan.max_minutes is not None and state.seconds >= 60.0 * plan.max_minutes:
        return f"{plan.max_minutes:g} minutes were up"
    return ""


def _patience_lost(state: TrainingState, plan: Plan) -> str:
    since = sum(step > state.kept_step for step in state.losses)
    return f"no better for {since} evaluations" if plan.patience is not None and since >= plan.patience else ""


def _make_optimizer(learner: Learner, plan: Plan) -> Optimizer:
    """AdamW; biases and LayerNorms do not decay."""
    import torch

    matrices = [parameter for parameter in learner.parameters if parameter.dim() > 1]
    others = [parameter for parameter in learner.parameters if parameter.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": plan.weight_decay}, {"params": others, "weight_decay": 0.0}]
    # One kernel for all parameters: on CPUs the plain one takes a tenth of a step.
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=plan.learning_rate, fused=True)


def _own_batches(learner: Learner, batches: Sequence[Batch], seed: int, *, done: int) -> Iterator[Batch]:
    """This process's share of the batches from here on."""
    # All draw the same endless order, so no batch is seen twice in a pass and a run that was cut off finds its place.
    count, own = learner.processes, learner.accelerator.process_index if learner.accelerator else 0
    return itertools.islice(endless_batches(batches, seed=seed), done * count + own, None, count)


def _train_step(learner: Learner, batch: Batch, optimizer: Optimizer) -> bool:
    """Learn from one batch; False, and nothing learnt, where loss or gradient are not finite."""
    import torch

    optimizer.zero_grad()
    try:
        loss = learner.loss(batch)
        loss.backward()
    except FloatingPointError:
        return False
    if learner.accelerator and learner.processes > 1:
        for parameter in learner.parameters:
            if parameter.grad is not None:
                parameter.grad = learner.accelerator.reduce(parameter.grad, reduction="mean")
    norm = torch.nn.utils.clip_grad_norm_(learner.parameters, GRADIENT_NORM)
    # The norm is of averaged gradients, the same for all; a loss is each process's own.
    if not (_least_of_all(learner, float(math.isfinite(loss.item()))) and math.isfinite(norm.item())):
        return False
    optimizer.step()
    return True


def _least_of_all(learner: Learner, value: float) -> float:
    """The least value that any of the processes has, so that all decide alike; its own where there is one process."""
    import torch

    if not learner.accelerator or learner.processes == 1:
        return value
    own = torch.tensor([value], dtype=torch.float32, device=learner.accelerator.device)
    return float(learner.accelerator.gather(own).min().item())


def _evaluate(learner: Learner, state: TrainingState, *, too_far: float = math.inf) -> bool:
    """Note the loss after this many steps, and keep the weights if none was lower; False where training diverged."""
    try:
        loss = _least_of_all(learner, learner.evaluate(state.steps))
    except FloatingPointError:
        return False
    if not math.isfinite(loss):
        return False
    state.losses[state.steps] = loss
    if loss == min(state.losses.values()):
        state.kept_step = state.steps
        state.weights = [parameter.detach().clone() for parameter in learner.parameters]
        state.extra = learner.extra()
    return state.steps == 0 or loss <= too_far * max(state.losses[0], LOW)


def _restore_best(learner: Learner, state: TrainingState) -> None:
    import torch

    learner.restore(state.extra)
    with torch.no_grad():
        for parameter, kept in zip(learner.parameters, state.weights, strict=True):
            parameter.copy_(kept)
