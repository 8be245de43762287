"""One trial: transformers' Trainer on a head's class, measured on tuning data now and then by the head's own metric.

After each measurement the Trainer saves all that its next step depends on, and with it what was measured so far. A
trial that was killed goes on from there: it tells its measurements again and trains on, to the same end. The weights
that were best on tuning data lie beside it.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimize.checkpoint import load_with_info, save_model
from optimize.errors import first_line
from optimize.evaluate.predict import collate, plan_batches, run_split
from optimize.heads import HEADS
from optimize.interfaces import Encoded, Feature, Head, Score
from optimize.training.batches import answers_of, pad_id_of, reproducible, session_of, trained_parameters
from optimize.training.labels import labels_by_name
from optimize.tuned import Outcome, Point
from optimize.tuning.space import Parameters
from optimize.tuning.work import Work

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, Trainer, TrainerControl, TrainerState

FAILURES = (RuntimeError, ArithmeticError, ValueError)
"""What PyTorch raises where memory is full or sizes do not fit, and what is raised here where training diverges."""
TRAINER, BEST = "trainer", "best-"
STATE, POINT = "trainer_state.json", "point"
"""What the Trainer writes of its state, last of all, and what is added to its log there."""


@dataclass(frozen=True)
class Tell:
    """Whom a trial tells: of measurements, which may answer that it is to stop, and of steps, done and in all."""

    measured: Callable[[Point], bool]
    step: Callable[[int, int], None] = lambda *_: None


def attempt(
    work: Work, number: int, parameters: Parameters, tell: Tell, *, seconds: float = math.inf
) -> tuple[Outcome, str]:
    """Train, for so many seconds at most; how that ended, and why where it failed."""
    try:
        return train(work, number, parameters, tell, seconds=seconds), ""
    except FAILURES as error:
        return "failed", f"{type(error).__name__}: {first_line(error)}"


def train(work: Work, number: int, parameters: Parameters, tell: Tell, *, seconds: float = math.inf) -> Outcome:
    """Train a trial to its end, from where it was left; leaves its best weights in its folder.

    Raises FAILURES, FloatingPointError among them where it diverges.
    """
    head, place = HEADS[work.head], work.trial(number)
    seed = work.seed + int(parameters["seed"])
    with reproducible(seed, work.threads):
        settings = dict.fromkeys(("dropout", "attention_dropout"), parameters["dropout"])
        model, _ = load_with_info(work.base, head.auto_class, settings=settings)
        trained_parameters(model, tables=work.space.train_embedding)
        batches = batches_of(work, int(parameters["batch_size"]))
        total = steps_of(work, len(batches), float(parameters["epochs"]))
        watch = Watch(work, head, model, place, total, tell, seconds)
        trainer = _make_trainer(watch, batches, parameters, seed)
        trainer.train(resume_from_checkpoint=last_checkpoint(place / TRAINER))
    return watch.outcome


def batches_of(work: Work, size: int) -> list[list[Feature]]:
    """The training features in batches of similar length."""
    features = work.training.features
    plan = plan_batches(features, size=size, tokens=work.space.batch_tokens)
    return [[features[index] for index in indices] for indices in plan]


def steps_of(work: Work, batches: int, epochs: float) -> int:
    """How many steps a trial has."""
    steps = max(1, round(epochs * batches))
    return steps if work.space.max_steps is None else min(steps, work.space.max_steps)


def _make_trainer(watch: Watch, batches: Sequence[list[Feature]], parameters: Parameters, seed: int) -> Trainer:
    """The Trainer of a trial. Its batches are made already, so it takes one at a time."""
    import transformers

    arguments = transformers.TrainingArguments(
        output_dir=str(watch.place / TRAINER),
        max_steps=watch.total,
        per_device_train_batch_size=1,
        learning_rate=float(parameters["learning_rate"]),
        lr_scheduler_type="linear",
        warmup_steps=round(float(parameters["warmup"]) * watch.total),
        weight_decay=float(parameters["weight_decay"]),
        seed=seed,
        data_seed=seed,
        # When to log and save is for the watch to say; it measures by itself.
        logging_strategy="no",
        eval_strategy="no",
        save_strategy="no",
        save_total_limit=1,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )
    trainer = transformers.Trainer(
        model=watch.model,
        args=arguments,
        train_dataset=batches,
        data_collator=collator(watch.work.training, watch.head, pad_id=pad_id_of(watch.model)),
        callbacks=[_callback(watch)],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer


def collator(training: Encoded, head: Head, *, pad_id: int) -> Callable[[Sequence[list[Feature]]], dict[str, Tensor]]:
    """What makes tensors of batches, with labels as the head's class takes them."""
    answers = answers_of(head, training)

    def make(batches: Sequence[list[Feature]]) -> dict[str, Tensor]:
        import torch

        features = [feature for batch in batches for feature in batch]
        inputs = {name: torch.from_numpy(array) for name, array in collate(features, pad_id=pad_id).items()}
        return {**inputs, **labels_by_name(features, training.gold, answers)}

    return make


def _callback(watch: Watch) -> Any:
    """The Trainer's callback that lets a watch hear of its events."""
    import transformers

    events: Mapping[str, Callable[[TrainerState, TrainerControl], None]] = {
        "on_train_begin": watch.begin,
        "on_step_end": watch.step,
        "on_log": watch.measure,
        "on_save": watch.saved,
    }

    def passing_on(act: Callable[[TrainerState, TrainerControl], None]) -> Callable[..., None]:
        def hear(_: object, __: object, state: TrainerState, control: TrainerControl, **___: object) -> None:
            act(state, control)

        return hear

    kind = type("Watching", (transformers.TrainerCallback,), {name: passing_on(act) for name, act in events.items()})
    return kind()


@dataclass
class Watch:
    """What looks at a trial while the Trainer trains it: when to measure, what is best, and when to stop."""

    work: Work
    head: Head
    model: PreTrainedModel
    place: Path
    total: int
    tell: Tell
    seconds: float
    outcome: Outcome = "finished"
    best: Point | None = None
    before: float = 0.0
    started: float = 0.0

    @property
    def took(self) -> float:
        """Seconds so far, those of earlier processes among them."""
        return self.before + time.monotonic() - self.started

    def is_due(self, step: int) -> bool:
        """Whether a trial is measured after this step: at its end, and as often before at even distances."""
        count = min(self.work.space.measurements, self.total)
        return step * count // self.total > (step - 1) * count // self.total

    def begin(self, state: TrainerState, control: TrainerControl) -> None:
        """Tell again what was measured before a kill."""
        self.started = time.monotonic()
        for entry in state.log_history:
            if POINT in entry:
                point = Point.model_validate(entry[POINT])
                self.before = point.seconds
                self._note(point)
                self._stop_if(self.tell.measured(point), control)

    def step(self, state: TrainerState, control: TrainerControl) -> None:
        """Say what is to be done after a step."""
        self.tell.step(state.global_step, self.total)
        if self.is_due(state.global_step):
            control.should_log = True
        elif self.took - self.before >= self.seconds:
            self.outcome = "out of time"
            control.should_log = control.should_training_stop = True

    def measure(self, state: TrainerState, control: TrainerControl) -> None:
        """Measure what the model scores on tuning data, once the Trainer says its loss; keep the best weights."""
        entry = state.log_history[-1]
        if "loss" not in entry:  # but what it says at the end of all
            return
        if not all(bool(parameter.isfinite().all()) for parameter in self.model.parameters()):
            raise FloatingPointError(f"weights are no numbers after step {state.global_step}: the rate is too high")
        score = score_of(self.model.eval(), self.head, self.work.tuning)
        point = Point(
            step=state.global_step,
            epoch=round(state.epoch, 4),
            value=score.value,
            others=dict(score.others),
            loss=entry["loss"] if math.isfinite(entry["loss"]) else None,
            seconds=round(self.took, 3),
        )
        entry[POINT] = point.model_dump()
        if self._note(point):
            keep_weights(self.model, self.place, point.step)
        stop = self.tell.measured(point)
        if state.global_step < self.total and not control.should_training_stop:
            self._stop_if(stop, control)
            control.should_save = not stop

    def saved(self, state: TrainerState, control: TrainerControl) -> None:
        """Remove the weights that were best before: what the Trainer saved says which are now."""
        del state, control
        for path in self.place.glob(f"{BEST}*"):
            if self.best is None or path.name != f"{BEST}{self.best.step}":
                shutil.rmtree(path)

    def _note(self, point: Point) -> bool:
        """Note the best measurement; whether it is this one."""
        if self.best is None or point.value > self.best.value:
            self.best = point
        return self.best is point

    def _stop_if(self, stop: bool, control: TrainerControl) -> None:
        if stop:
            self.outcome = "stopped"
            control.should_training_stop = True


def score_of(model: PreTrainedModel, head: Head, tuning: Encoded) -> Score:
    """What the model scores on tuning data, with whatever the head has to fix there fixed for this model."""
    outputs = run_split(session_of(model, head), head, tuning, pad_id=pad_id_of(model))
    if head.fit is not None and head.fit.needed(tuning):
        tuning = replace(tuning, thresholds=head.fit.thresholds(tuning, outputs.answers))
    return head.score(tuning, outputs.answers)


def keep_weights(model: PreTrainedModel, place: Path, step: int) -> None:
    """Write a model's weights as the best of its trial, whole or not at all."""
    partial, final = place / f".{BEST}{step}", place / f"{BEST}{step}"
    for path in (partial, final):
        shutil.rmtree(path, ignore_errors=True)
    save_model(model, partial)
    partial.rename(final)


def best_weights(place: Path, point: Point) -> Path:
    """Where the weights of a trial's best measurement lie."""
    return place / f"{BEST}{point.step}"


def last_checkpoint(folder: Path) -> str | None:
    """The last checkpoint that the Trainer wrote whole; None where there is none."""
    found = {int(path.name.rpartition("-")[2]): path for path in folder.glob("checkpoint-*")}
    for step in sorted(found, reverse=True):
        if _is_whole(found[step]):
            return str(found[step])
    return None


def _is_whole(checkpoint: Path) -> bool:
    """Whether the last of its files is there to its end."""
    path = checkpoint / STATE
    try:
        return isinstance(json.loads(path.read_text(encoding="utf-8")), dict)
    except (FileNotFoundError, ValueError):
        return False
