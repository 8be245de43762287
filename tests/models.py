"""Contexts of small checkpoints, and a way to run a stage on one as a run does; for tests of any folder."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
from doubles import Silent, untimed_stacks
from libraries import lacking

from optimize.artifact import Artifact, copy_companions, seal
from optimize.building import open_folder
from optimize.data.splits import Wanted, load_splits
from optimize.data.tokenized import encode, split_by_tokenizer
from optimize.gates import Gates
from optimize.heads import HEADS
from optimize.interfaces import Context, Encoded, Facts, Feature, Feed, Progress, Session, Text
from optimize.machine import environment
from optimize.stages import STAGES

TINY = {
    "vocab_size": 203,
    "max_position_embeddings": 64,
    "dim": 64,
    "hidden_dim": 128,
    "n_layers": 2,
    "n_heads": 2,
    "initializer_range": 0.1,
}

UNTAUGHT = ("multiple-choice", "text-classification")
"""Heads whose small checkpoint has hardly learnt anything: what it loses is noise, and labels lead away from it."""


@pytest.fixture
def silent() -> Silent:
    return Silent()


@dataclass(frozen=True)
class Built:
    """What a stage wrote, and the facts it stated."""

    artifact: Artifact
    facts: Facts

    def model(self) -> onnx.ModelProto:
        """The graph, read anew."""
        return onnx.load(self.artifact.path / "model.onnx")

    def graph(self) -> onnx_ir.Model:
        """The graph as onnx_ir holds it, read anew."""
        return onnx_ir.load(self.artifact.path / "model.onnx")

    def operators(self) -> list[str]:
        """Operator types of all nodes."""
        return [node.op_type for node in self.model().graph.node]

    def weights(self) -> dict[str, np.ndarray[Any, Any]]:
        """All initializers."""
        return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in self.model().graph.initializer}

    def open(self, context: Context) -> Session:
        """A session on the graph."""
        return context.open(self.artifact.kind, self.artifact.path)


def make_context(head: str, folder: Path, calibration: Encoded, tuning: Encoded, progress: Progress) -> Context:
    return Context(
        head=HEADS[head],
        reference=seal(folder, "torch"),
        calibration=calibration,
        tuning=tuning,
        training=Encoded((), (), 0),
        limits=Gates(),
        seed=0,
        threads=1,
        cpu_features=environment.cpu_features(),
        progress=progress,
        open=functools.partial(open_folder, head=HEADS[head], threads=1),
        time_stacks=untimed_stacks,
    )


@pytest.fixture(scope="session")
def context(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Context]:
    """A head's small checkpoint with a little of the demo's text to look at."""

    @functools.cache
    def make(head: str) -> Context:
        import transformers

        folder = checkpoint(head)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        wanted = Wanted("demo", None, {}, None, 8, 8, 8, 0)
        splits = load_splits(wanted, HEADS[head], config)
        text = Text(transformers.AutoTokenizer.from_pretrained(folder), config, 64)
        encoded = [encode(HEADS[head], rows, text) for rows in (splits.calibration, splits.tuning)]
        retokenize = split_by_tokenizer(HEADS[head], splits.tuning, 64, {folder: encoded[1]})
        return dataclasses.replace(make_context(head, folder, *encoded, Silent()), retokenize=retokenize)

    return make


@pytest.fixture(scope="session")
def random_context(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Context]:
    """A DistilBERT of any geometry with random weights."""

    def make(head: str, seed: int = 0, **geometry: Any) -> Context:
        import torch
        import transformers

        folder = tmp_path_factory.mktemp("random") / "checkpoint"
        config = transformers.DistilBertConfig(**{**TINY, **geometry})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            getattr(transformers, HEADS[head].architecture)(config).save_pretrained(folder)
        shape = (3, 8) if head == "multiple-choice" else (8,)
        inputs = {name: np.ones(shape, dtype=np.int64) for name in ("input_ids", "attention_mask")}
        encoded = Encoded((Feature(inputs, 0),), (0,), 0)
        return make_context(head, folder, encoded, encoded, Silent())

    return make


@pytest.fixture(scope="session")
def edited(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Context, Callable[[Any], None]], Context]:
    """A context whose checkpoint has other weights: what `edit` makes of the PyTorch model in place."""

    def make(context: Context, edit: Callable[[Any], None]) -> Context:
        import torch
        import transformers

        folder = tmp_path_factory.mktemp("edited") / "checkpoint"
        model = getattr(transformers, context.head.architecture).from_pretrained(context.reference.path)
        with torch.no_grad():
            edit(model)
        shutil.copytree(context.reference.path, folder)
        model.save_pretrained(folder)
        return dataclasses.replace(context, reference=seal(folder, "torch"))

    return make


@pytest.fixture(scope="session")
def known(context, edited) -> Callable[[str], Context]:
    """The context of a head's small checkpoint made loud enough to say something, so that a loss of it is no noise."""

    def louder(model: Any) -> None:
        model.classifier.weight *= 50

    @functools.cache
    def make(head: str) -> Context:
        return edited(context(head), louder) if head in UNTAUGHT else context(head)

    return make


@pytest.fixture(scope="session")
def apply(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Built]:
    """Run a stage on what another one built, or on the checkpoint; skip where a library of the stage is absent."""
    done: dict[tuple[object, ...], Built] = {}

    def run(context: Context, stage: str, source: Built | None = None, **params: Any) -> Built:
        if absent := lacking(STAGES[stage].needs):
            pytest.skip(absent)
        artifact = source.artifact if source else context.reference
        seen = (context.head.name, context.cpu_features, context.limits, len(context.calibration.features))
        key = (*seen, artifact.digest, stage, *sorted(params.items()))
        if key not in done:
            out = tmp_path_factory.mktemp(stage)
            facts = STAGES[stage].run(artifact, out, STAGES[stage].params(**params), context)
            copy_companions(artifact.path, artifact.kind, out)
            done[key] = Built(seal(out, STAGES[stage].gives), facts)
        return done[key]

    return run


@pytest.fixture(scope="session")
def rewritten(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Built, onnx.ModelProto], Built]:
    """What a stage built, with another graph in its place."""

    def make(built: Built, model: onnx.ModelProto) -> Built:
        out = tmp_path_factory.mktemp("rewritten")
        onnx.save(model, out / "model.onnx")
        copy_companions(built.artifact.path, "onnx", out)
        return Built(seal(out, "onnx"), {})

    return make


def mask_of(kind: str, batch: int, tokens: int) -> np.ndarray[Any, Any]:
    mask = np.ones((batch, tokens), dtype=np.int64)
    if kind == "left-padded":
        mask[1:, : tokens // 3] = 0
    elif kind == "right-padded":
        mask[1:, -(tokens // 3) :] = 0
    elif kind == "holed":
        mask[:, tokens // 2 : tokens // 2 + 3] = 0
    return mask


@pytest.fixture(scope="session")
def make_feed() -> Callable[..., Feed]:
    """Random tokens for a context, with a mask that is full, left-padded, right-padded or holed."""

    def make(context: Context, kind: str = "full", batch: int = 3, tokens: int = 21) -> Feed:
        config: Mapping[str, Any] = json.loads((context.reference.path / "config.json").read_text(encoding="utf-8"))
        rng = np.random.default_rng(7)
        ids = rng.integers(5, config["vocab_size"], (batch, tokens), dtype=np.int64)
        mask = mask_of(kind, batch, tokens)
        if context.head.name == "multiple-choice":
            ids, mask = np.stack([ids, ids[:, ::-1]], axis=1), np.stack([mask, mask], axis=1)
        return {"input_ids": ids, "attention_mask": mask}

    return make


@pytest.fixture(scope="session")
def difference() -> Callable[[Context, Session, Session, Feed], float]:
    """The largest difference between two sessions' outputs, where the head reads them."""

    def largest(context: Context, one: Session, other: Session, feed: Feed) -> float:
        kept = feed["attention_mask"] == 1 if context.head.reads == "all tokens" else ...
        first, second = one(feed), other(feed)
        return max(float(np.abs(first[name] - second[name])[kept].max()) for name in context.head.outputs)

    return largest
