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
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from optimize.interfaces import Context, Facts
from optimize.training import state
from optimize.training.batches import Batch, supply
from optimize.training.state import Learner, Outcome

GRADIENT_NORM = 1.0
LOW = 0.01


@dataclass(frozen=True)
class Plan:
    """How long to train, and how fast.

    `patience` is how many evaluations may pass without a lower loss. A loss above `too_far` times the first one counts
    as diverged, unless that was so low (`LOW`) that this says nothing. With `max_minutes`, the rate falls to zero by
    whatever comes first, steps or time.
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


def train(learner: Learner, plan: Plan, batches: Sequence[Batch], context: Context) -> Outcome:
    """Train the learner's parameters in place; raises FloatingPointError where the first loss is not finite."""
    optimizer, outcome = _make_optimizer(learner, plan), Outcome()
    if state.load(context, learner, optimizer, outcome):
        context.progress.say(f"{learner.name}: goes on after step {outcome.steps}")
    elif not _judge(learner, outcome):
        raise FloatingPointError("the loss is not finite before training")
    lessons = _lessons(learner, batches, context, done=outcome.steps)
    started = time.monotonic() - outcome.seconds
    while not outcome.ended:
        step, total = outcome.steps + 1, expected_steps(outcome, plan)
        for group in optimizer.param_groups:
            group["lr"] = plan.learning_rate * rate_scale(step - 1, total, plan.warmup)
        sound = _learn(learner, next(lessons), optimizer)
        outcome.steps += sound
        outcome.seconds = _agreed(learner, time.monotonic() - started)
        ending = _reason_to_end(outcome, plan)
        if sound and (step % plan.evaluate_every == 0 or ending):
            sound = _judge(learner, outcome, too_far=plan.too_far)
        outcome.ended = f"diverged at step {step}" if not sound else ending or _patience_lost(outcome, plan)
        context.progress.step(learner.name, step, step if outcome.ended else total)
        if step % plan.save_every == 0 and not outcome.ended:
            state.save(context, learner, optimizer, outcome)
    _put_back(learner, outcome)
    return outcome


def facts_of(outcome: Outcome) -> Facts:
    """What a stage states of its training."""
    return {
        "steps": outcome.steps,
        "ended": outcome.ended,
        "kept": f"step {outcome.kept_step}" if outcome.kept_step else "the starting weights",
        "kept_step": outcome.kept_step,
        "loss_before": outcome.losses[0],
        "loss_after": outcome.losses[outcome.kept_step],
        "losses": [{"step": step, "loss": loss} for step, loss in outcome.losses.items()],
    }


def rate_scale(step: int, steps: int, warmup: float) -> float:
    """Rise linearly over the share `warmup` of the steps, then fall linearly towards zero."""
    rising = max(1, round(warmup * steps))
    return min((step + 1) / rising, (steps - step) / max(1, steps - rising))


def expected_steps(outcome: Outcome, plan: Plan) -> int:
    """How many steps there will be: all, or as many as the time is enough for at the pace so far."""
    if plan.max_minutes is None or not outcome.steps:
        return plan.steps
    affordable = outcome.steps * 60.0 * plan.max_minutes / max(outcome.seconds, 1e-9)
    return min(plan.steps, max(outcome.steps + 1, int(affordable)))


def _reason_to_end(outcome: Outcome, plan: Plan) -> str:
    """Why no further step is planned; empty where one is."""
    if outcome.steps >= plan.steps:
        return "all steps done"
    if plan.max_minutes is not None and outcome.seconds >= 60.0 * plan.max_minutes:
        return f"{plan.max_minutes:g} minutes were up"
    return ""


def _patience_lost(outcome: Outcome, plan: Plan) -> str:
    since = sum(step > outcome.kept_step for step in outcome.losses)
    return f"no better for {since} evaluations" if plan.patience is not None and since >= plan.patience else ""


def _make_optimizer(learner: Learner, plan: Plan) -> Any:
    """AdamW; biases and LayerNorms do not decay."""
    import torch

    maps = [each for each in learner.parameters if each.dim() > 1]
    others = [each for each in learner.parameters if each.dim() <= 1]
    groups = [{"params": maps, "weight_decay": plan.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=plan.learning_rate)


def _lessons(learner: Learner, batches: Sequence[Batch], context: Context, *, done: int) -> Any:
    """This process's share of the batches from here on."""
    count, own = learner.together, learner.crew.process_index if learner.crew else 0
    return itertools.islice(supply(batches, seed=context.seed), done * count + own, None, count)


def _learn(learner: Learner, batch: Batch, optimizer: Any) -> bool:
    """Learn from one batch; False, and nothing learnt, where loss or gradient are not finite."""
    import torch

    optimizer.zero_grad()
    try:
        loss = learner.loss(batch)
        loss.backward()
    except FloatingPointError:
        return False
    if learner.together > 1:
        for parameter in learner.parameters:
            if parameter.grad is not None:
                parameter.grad = learner.crew.reduce(parameter.grad, reduction="mean")
    norm = torch.nn.utils.clip_grad_norm_(learner.parameters, GRADIENT_NORM)
    if not (_agreed(learner, float(math.isfinite(loss.item()))) and math.isfinite(norm.item())):
        return False
    optimizer.step()
    return True


def _agreed(learner: Learner, value: float) -> float:
    """The least that any of the processes says; its own where there is one."""
    import torch

    if learner.together == 1:
        return value
    said = learner.crew.gather(torch.tensor([value], dtype=torch.float32, device=learner.crew.device))
    return float(said.min().item())


def _judge(learner: Learner, outcome: Outcome, *, too_far: float = math.inf) -> bool:
    """Note the loss after this many steps, and keep the state if none was lower; False if there is no going on."""
    try:
        loss = _agreed(learner, learner.judge(outcome.steps))
    except FloatingPointError:
        return False
    if not math.isfinite(loss):
        return False
    outcome.losses[outcome.steps] = loss
    if loss == min(outcome.losses.values()):
        outcome.kept_step = outcome.steps
        outcome.weights = [parameter.detach().clone() for parameter in learner.parameters]
        outcome.extra = learner.extra()
    return outcome.steps == 0 or loss <= too_far * max(outcome.losses[0], LOW)


def _put_back(learner: Learner, outcome: Outcome) -> None:
    import torch

    learner.put_back(outcome.extra)
    with torch.no_grad():
        for parameter, kept in zip(learner.parameters, outcome.weights, strict=True):
            parameter.copy_(kept)
