"""What trials are made of, wherever they run: the data they learn from, the checkpoint they begin with, and a folder.

    <folder>/base/              the checkpoint that trials begin with, for the head, without its weights where it is new
    <folder>/study.log          what Optuna knows of the trials
    <folder>/events.jsonl       what happens, line by line
    <folder>/trials/<number>/   trial.json; while it trains, `trainer` with the Trainer's last checkpoint; `best-<step>`
                                with the weights that were best on tuning data, of one of the trials that have ended
    <folder>/ray/               what Ray keeps of a search

Certification data are in none of it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from optimize.building import require_unchanged
from optimize.cache import Entry
from optimize.checkpoint import CONFIG_FILE, load_model, read_config, save_model
from optimize.data.splits import load_splits
from optimize.data.tokenized import encode, read_text, token_limit
from optimize.data.wanted import Splits
from optimize.errors import DataError
from optimize.files.assembling import assembled
from optimize.interfaces import Encoded, Progress, Text
from optimize.source.acquire import acquire_checkpoint
from optimize.source.finding import goes_on_from_its_own
from optimize.source.tokenizer import tokenizer_files
from optimize.training.batches import answers_of
from optimize.training.labels import teaching
from optimize.tuning.plan import TuningPlan
from optimize.tuning.space import Tuning

BASE, EVENTS, STUDY, TRIALS, RAY = "base", "events.jsonl", "study.log", "trials", "ray"
CLASSES = ("id2label", "label2id", "num_labels", "problem_type")
"""What a config says of classes."""


@dataclass(frozen=True)
class Loaded:
    """A plan's checkpoint and data, ready to train on; `config` is what its models say of themselves."""

    plan: TuningPlan
    origin: Entry
    config: Mapping[str, Any]
    splits: Splits
    text: Text
    training: Encoded
    tuning: Encoded

    @property
    def new_head(self) -> bool:
        """Whether the head's first weights are drawn at random."""
        return self.plan.taken is not self.plan.head or not goes_on_from_its_own(self.plan.head)


@dataclass(frozen=True)
class Work:
    """What a trial needs, in this process or in another one that shares the folder's disk."""

    folder: Path
    head: str
    training: Encoded
    tuning: Encoded
    space: Tuning
    seed: int
    threads: int

    @property
    def base(self) -> Path:
        """The checkpoint that trials begin with."""
        return self.folder / BASE

    def trial(self, number: int) -> Path:
        """The folder of a trial."""
        return self.folder / TRIALS / str(number)


def load(plan: TuningPlan, progress: Progress) -> Loaded:
    """Get the checkpoint in FP32 and the data, with the classes that they have; certification data only set aside."""
    progress.say(f"checkpoint: {plan.options.model}")
    seed = plan.options.seed
    origin = acquire_checkpoint(plan.found, plan.taken, root=plan.cache, seed=seed, progress=progress)
    folder = origin.artifact.path
    config = read_config(folder)
    progress.say(f"data: {plan.wanted.name}")
    known = config if goes_on_from_its_own(plan.head) else _without_classes(config)
    splits = load_splits(plan.wanted, plan.head, known, new_classes=True, progress=progress)
    for note in splits.notes:
        progress.say(note)
    if not splits.tuning:
        raise DataError(f"{plan.wanted.name}: is too small to measure trials on; give it more examples")
    longest = int(config["max_position_embeddings"])
    limit = token_limit(plan.head, folder, asked=plan.options.max_tokens, longest=longest)
    read = read_text(folder, limit)
    text = Text(read.tokenizer, splits.config, limit)
    training, tuning = encode(plan.head, splits.training, text), encode(plan.head, splits.tuning, text)
    taught = tuple(teaching(training.features, training.gold, answers_of(plan.head, training)))
    if not taught:
        raise DataError(f"{plan.wanted.name}: no training example has a label that says where; check --data")
    return Loaded(plan, origin, splits.config, splits, text, replace(training, features=taught), tuning)


def _without_classes(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name not in CLASSES}


def make_base(loaded: Loaded, folder: Path) -> None:
    """Write what trials begin with below a folder, unless it is there."""
    if (folder / BASE).exists():
        return
    source = loaded.origin.artifact
    with assembled(folder, BASE) as partial:
        model = load_model(source.path, "AutoModel" if loaded.new_head else loaded.plan.head.auto_class)
        save_model(model, partial)
        for path in tokenizer_files(source.path):
            shutil.copyfile(path, partial / path.name)
        _write_config(loaded, partial)
        require_unchanged(source)
        partial.rename(folder / BASE)


def _write_config(loaded: Loaded, folder: Path) -> None:
    """Have the config name the head's class, and the data's classes where the head has such."""
    head = loaded.plan.head
    written = read_config(folder)
    if loaded.new_head:
        written = _without_classes(written)
    written["architectures"] = [head.architecture]
    if not goes_on_from_its_own(head):
        written |= {name: loaded.config[name] for name in CLASSES if name in loaded.config and name != "num_labels"}
    (folder / CONFIG_FILE).write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")


def classes_of(loaded: Loaded) -> list[str]:
    """The classes' names by their ids; none where the head has none of its own."""
    names: Mapping[str, str] = {} if goes_on_from_its_own(loaded.plan.head) else loaded.config["id2label"]
    return [names[str(number)] for number in range(len(names))]
