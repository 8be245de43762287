"""What a search over fine-tunings tries, and how far it goes.

Ranges are those in which DistilBERT is usually fine-tuned. The first trial is the usual recipe, as far as the ranges
allow it, so that a search gives at least what one would have trained without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field, field_validator

from optimize.interfaces import Params

OWNER = "tune"
"""What has these parameters, in `--set`."""
Range = float | tuple[float, float]
"""Least and most, or the one value that is not searched over."""
Parameters = dict[str, float | int]
"""What one trial is trained with, by name."""
USUAL: Parameters = {
    "learning_rate": 5e-5,
    "epochs": 3.0,
    "batch_size": 32,
    "warmup": 0.1,
    "weight_decay": 0.01,
    "dropout": 0.1,
}
"""The recipe that most would begin with."""


class Tuning(Params):
    """What a search over fine-tunings tries, and how far it goes."""

    trials: int = Field(
        default=16, ge=1, description="Trials, those that were stopped or failed among them. `--trials` sets it."
    )
    minutes: float = Field(
        default=60.0,
        gt=0,
        description="How long all trials together may train and be measured; on Ray, where several do at a time, how "
        "long each call may take. `--minutes` sets it.",
    )
    learning_rate: Range = Field(
        default=(1e-5, 1e-4),
        description="Highest learning rate, drawn by its logarithm. It rises over the warm-up and then falls to zero.",
    )
    epochs: Range = Field(
        default=(1.0, 4.0), description="How often the training examples are shown; fractions are fine."
    )
    batch_size: tuple[int, ...] = Field(
        default=(16, 32, 64), description="Examples in a batch, at most. Those of similar length are put together."
    )
    warmup: Range = Field(default=(0.0, 0.2), description="Share of the steps over which the learning rate rises.")
    weight_decay: Range = Field(
        default=(0.0, 0.1), description="Decay of weights, as AdamW does it. Biases and LayerNorms do not decay."
    )
    dropout: Range = Field(
        default=(0.05, 0.2), description="Share of the encoder's activations that is dropped out, attention included."
    )
    seeds: tuple[int, ...] = Field(
        default=(0,),
        description="Added to `--seed`, which draws the first weights of a new head, the order of examples and what is "
        "dropped out. More than one searches over luck, too.",
    )
    batch_tokens: int = Field(
        default=4096, ge=1, description="Padded tokens in a batch, at most. It bounds memory where texts are long."
    )
    max_steps: int | None = Field(
        default=None, ge=1, description="Most steps of a trial, whatever epochs say. Left out, there is no limit."
    )
    train_embedding: bool = Field(
        default=True,
        description="Whether the embedding tables learn as well. Without it, steps are shorter and words that training "
        "does not show stay where they are.",
    )
    measurements: int = Field(
        default=8, ge=1, description="How often a trial is measured on tuning data, its end included."
    )
    grace: int = Field(default=2, ge=1, description="Measurements before a trial may be stopped.")
    reduction: int = Field(
        default=2,
        ge=2,
        description="One of so many trials goes on at each rung: after `grace` measurements, after `reduction` times "
        "as many, and so on (asynchronous successive halving).",
    )

    @field_validator("learning_rate", "epochs", "warmup", "weight_decay", "dropout")
    @classmethod
    def _rises(cls, value: Range) -> Range:
        if isinstance(value, tuple) and not value[0] < value[1]:
            raise ValueError("is one number, or two of which the second is larger, such as [0.1, 0.2]")
        return value

    @field_validator("learning_rate", "epochs")
    @classmethod
    def _is_positive(cls, value: Range) -> Range:
        if lowest(value) <= 0:
            raise ValueError("is above 0")
        return value

    @field_validator("warmup", "dropout")
    @classmethod
    def _is_a_share(cls, value: Range) -> Range:
        if lowest(value) < 0 or highest(value) >= 1:
            raise ValueError("is a share from 0 up to less than 1")
        return value

    @field_validator("weight_decay")
    @classmethod
    def _is_not_negative(cls, value: Range) -> Range:
        if lowest(value) < 0:
            raise ValueError("is 0 or more")
        return value

    @field_validator("batch_size", "seeds")
    @classmethod
    def _names_choices(cls, value: tuple[int, ...], info: Any) -> tuple[int, ...]:
        least = 1 if info.field_name == "batch_size" else 0
        if not value or len(set(value)) < len(value) or min(value) < least:
            raise ValueError(f"is a list of different whole numbers, each {least} or more, such as [16, 32]")
        return value

    @property
    def what_trials_are(self) -> dict[str, Any]:
        """What shapes trials and their order, whatever the limits of the search are."""
        return self.model_dump(mode="json", exclude={"trials", "minutes"})


def lowest(value: Range) -> float:
    """The least of a range."""
    return value[0] if isinstance(value, tuple) else value


def highest(value: Range) -> float:
    """The most of a range."""
    return value[1] if isinstance(value, tuple) else value


def suggest(trial: Any, tuning: Tuning) -> Parameters:
    """What a trial of Optuna's is to be trained with; asked again, the same."""

    def within(name: str, *, log: bool = False) -> float:
        value: Range = getattr(tuning, name)
        return float(trial.suggest_float(name, *value, log=log)) if isinstance(value, tuple) else value

    def among(name: str, values: Sequence[int]) -> int:
        return int(trial.suggest_categorical(name, list(values))) if len(values) > 1 else values[0]

    return {
        "learning_rate": within("learning_rate", log=True),
        "epochs": within("epochs"),
        "batch_size": among("batch_size", tuning.batch_size),
        "warmup": within("warmup"),
        "weight_decay": within("weight_decay"),
        "dropout": within("dropout"),
        "seed": among("seed", tuning.seeds),
    }


def usual(tuning: Tuning) -> Parameters:
    """The usual recipe, as far as it lies within the space: of what is searched over, what the first trial is given."""
    found: Parameters = {}
    for name, value in USUAL.items():
        space = getattr(tuning, name)
        if name == "batch_size":
            if len(space) > 1:
                found[name] = min(space, key=lambda size: abs(size - value))
        elif isinstance(space, tuple):
            found[name] = min(max(value, space[0]), space[1])
    if len(tuning.seeds) > 1:
        found["seed"] = tuning.seeds[0]
    return found
