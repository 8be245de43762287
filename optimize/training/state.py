"""The state of training, and how it survives a kill: all that the next step depends on, in a file whole or absent.

That is the weights, the optimizer's moments, the best state so far, the losses, the generator's state and the number
of steps, which alone says where in the order of batches and in the schedule to go on.
"""

from __future__ import annotations

import contextlib
import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimize.artifact import file_digest
from optimize.errors import first_line
from optimize.interfaces import Context
from optimize.training.batches import Batch

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor
    from torch.nn import Parameter
    from torch.optim import Optimizer

FILES = "training-*.pt"
"""What is saved, by its name: a digest of the content is in the place of the star."""
SAVED = ("steps", "seconds", "losses", "kept_step", "weights", "extra")
"""What is saved of a `TrainingState`; how training ended is not, for there is nothing to go on with then."""


@dataclass(frozen=True)
class Learner:
    """What is trained: `loss` of a batch, and `evaluate` for the loss on tuning data after so many steps.

    `extra` gives what belongs to the best state besides the parameters, and `restore` takes it again. `accelerator` is
    there where several processes may train together.
    """

    parameters: Sequence[Parameter]
    loss: Callable[[Batch], Tensor]
    evaluate: Callable[[int], float]
    extra: Callable[[], Mapping[str, object]] = dict
    restore: Callable[[Mapping[str, Any]], None] = lambda _: None
    accelerator: Accelerator | None = None
    name: str = "train"

    @property
    def processes(self) -> int:
        """How many processes train together."""
        return int(self.accelerator.num_processes) if self.accelerator else 1


@dataclass
class TrainingState:
    """Steps and seconds taken, tuning losses by step, the best weights so far, and how training ended."""

    steps: int = 0
    seconds: float = 0.0
    losses: dict[int, float] = field(default_factory=dict)
    kept_step: int = 0
    weights: list[Tensor] = field(default_factory=list)
    extra: Mapping[str, object] = field(default_factory=dict)
    ended: str = ""


def save_state(context: Context, learner: Learner, optimizer: Optimizer, state: TrainingState) -> None:
    """Replace what was saved before; the first of several processes does it."""
    import torch

    if context.scratch is None or (learner.accelerator and not learner.accelerator.is_main_process):
        return
    content: dict[str, object] = {
        "parameters": [parameter.detach() for parameter in learner.parameters],
        "optimizer": optimizer.state_dict(),
        "now": learner.extra(),
        "random": torch.get_rng_state(),
    }
    for name in SAVED:
        content[name] = getattr(state, name)
    fresh = context.scratch / f"{os.getpid()}.partial"
    # Another process that does the same work may finish and take the folder away: then nothing is to be kept.
    with contextlib.suppress(FileNotFoundError):
        context.scratch.mkdir(parents=True, exist_ok=True)
        with fresh.open("wb") as stream:
            torch.save(content, stream)
            stream.flush()
            # Without it, a power cut may leave the new name with none of the content.
            os.fsync(stream.fileno())
        before = list(context.scratch.glob(FILES))
        os.replace(fresh, context.scratch / FILES.replace("*", file_digest(fresh)))
        for each in before:
            each.unlink(missing_ok=True)


def load_state(context: Context, learner: Learner, optimizer: Optimizer, state: TrainingState) -> bool:
    """Put everything back as it was saved, in place; False where nothing readable is there."""
    import torch

    content = _read(context)
    if content is None:
        return False
    with torch.no_grad():
        for parameter, saved in zip(learner.parameters, content["parameters"], strict=True):
            parameter.copy_(saved)
    optimizer.load_state_dict(content["optimizer"])
    learner.restore(content["now"])
    torch.set_rng_state(content["random"])
    for name in SAVED:
        setattr(state, name, content[name])
    return True


def _read(context: Context) -> dict[str, Any] | None:
    """What was saved, if anything; where that is damaged, the work begins anew, and says so."""
    import torch

    saved = sorted(context.scratch.glob(FILES), key=_written) if context.scratch else []
    if not saved:
        return None
    newest = saved[-1]  # a process that was killed at the wrong moment leaves the one before as well
    try:
        if newest.name != FILES.replace("*", file_digest(newest)):
            raise OSError("it is not what was written")
        # With `weights_only` nothing in the file is run.
        content: dict[str, Any] = torch.load(newest, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        context.progress.say(f"training begins anew: what an earlier run saved is damaged ({first_line(error)})")
        return None
    return content


def _written(path: Path) -> int:
    """When a file was written; before all others where another process has just taken it away."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
