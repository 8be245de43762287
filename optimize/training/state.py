"""Training that survives a kill: everything the next step depends on, in one file that is there whole or not at all.

That is the weights, the optimizer's moments, the best state so far, the losses, the generator's state and the number
of steps, which alone says where in the order of batches and in the schedule to go on.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from optimize.errors import first_line
from optimize.interfaces import Context
from optimize.training.batches import Batch

FILE = "training.pt"
KEPT = ("steps", "seconds", "losses", "kept_step", "weights", "extra")


def save(context: Context, learner: Learner, optimizer: Any, outcome: Outcome) -> None:
    """Replace what was saved before; the first of several processes does it."""
    import torch

    if context.scratch is None or (learner.crew and not learner.crew.is_main_process):
        return
    state = {
        "parameters": [parameter.detach() for parameter in learner.parameters],
        "optimizer": optimizer.state_dict(),
        "now": learner.extra(),
        "random": torch.get_rng_state(),
        **{name: getattr(outcome, name) for name in KEPT},
    }
    fresh = context.scratch / f"{FILE}.{os.getpid()}"
    # Another process that does the same work may finish and take the folder away: then nothing is to be kept.
    with contextlib.suppress(FileNotFoundError):
        context.scratch.mkdir(parents=True, exist_ok=True)
        with fresh.open("wb") as stream:
            torch.save(state, stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(fresh, context.scratch / FILE)


def load(context: Context, learner: Learner, optimizer: Any, outcome: Outcome) -> bool:
    """Put everything back as it was saved, in place; False where nothing readable is there."""
    import torch

    state = _read(context)
    if state is None:
        return False
    with torch.no_grad():
        for parameter, saved in zip(learner.parameters, state["parameters"], strict=True):
            parameter.copy_(saved)
    optimizer.load_state_dict(state["optimizer"])
    learner.put_back(state["now"])
    torch.set_rng_state(state["random"])
    for name in KEPT:
        setattr(outcome, name, state[name])
    return True


def _read(context: Context) -> dict[str, Any] | None:
    """What was saved, if anything; where that is damaged, the work begins anew, and says so."""
    import torch

    if context.scratch is None or not (context.scratch / FILE).is_file():
        return None
    try:
        if not zipfile.is_zipfile(context.scratch / FILE):
            raise pickle.UnpicklingError("is no archive")
        state: dict[str, Any] = torch.load(context.scratch / FILE, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        context.progress.say(f"training begins anew: what an earlier run saved is damaged ({first_line(error)})")
        return None
    return state


@dataclass(frozen=True)
class Learner:
    """What is trained: `loss` of a batch, and `judge` for the loss on tuning data after so many steps.

    `extra` gives what belongs to the best state besides the parameters, and `put_back` takes it again. `crew` is an
    Accelerator where several processes may learn together.
    """

    parameters: Sequence[Any]
    loss: Callable[[Batch], Any]
    judge: Callable[[int], float]
    extra: Callable[[], dict[str, Any]] = dict
    put_back: Callable[[dict[str, Any]], None] = lambda _: None
    crew: Any = None
    name: str = "train"

    @property
    def together(self) -> int:
        """How many processes learn."""
        return self.crew.num_processes if self.crew else 1


@dataclass
class Outcome:
    """Steps and seconds taken, tuning losses by step, the best state so far, and how training ended."""

    steps: int = 0
    seconds: float = 0.0
    losses: dict[int, float] = field(default_factory=dict)
    kept_step: int = 0
    weights: list[Any] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)
    ended: str = ""
