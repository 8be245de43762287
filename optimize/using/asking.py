"""What is asked of a model: the words that tasks, models and servers share.

A question is one input of a user made into features, and how their outputs become its answer. So whoever has many
questions at a time, of one caller or of many, runs their features in batches of similar length.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from optimize.checkpoint import read_config
from optimize.errors import DataError, shown
from optimize.heads import _encoding
from optimize.interfaces import Array, Feature, Feed, Params
from optimize.manifest import Manifest
from optimize.sentences.layout import lists_modules, read_encoder
from optimize.using.tokens import Tokens, read_tokens


@dataclass(frozen=True)
class Known:
    """What tasks go by besides outputs: how texts become tokens, the checkpoint's config, and what the run fixed.

    `max_tokens` is the longest text that the run judged the model with; `thresholds` are the manifest's.
    """

    tokens: Tokens
    config: Mapping[str, Any]
    max_tokens: int
    prompt: str = ""
    thresholds: Mapping[str, float] = field(default_factory=dict)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes by id."""
        return _encoding.class_names(self.config)


def read_known(folder: Path, record: Manifest) -> Known:
    """What the model's folder and the manifest say of how it is asked."""
    config = read_config(folder)
    tokens = read_tokens(folder, int(config["vocab_size"]))
    prompt, most = "", [record.request.max_tokens, config.get("max_position_embeddings")]
    if lists_modules(folder):
        encoder = read_encoder(folder, where=str(folder))
        prompt = encoder.prompt
        most.append(encoder.max_tokens)
    return Known(tokens, config, min(int(each) for each in most if each), prompt, record.thresholds)


@dataclass(frozen=True)
class Question:
    """One input: its features, and what makes its answer of their outputs, which are unpadded and in their order."""

    features: tuple[Feature, ...]
    answer: Callable[[Sequence[Feed]], Any]


@dataclass(frozen=True)
class Task:
    """How users ask a model of a head, as they would ask transformers.pipeline.

    `options` are the words beside the input. `ask(given, options, known)` takes one input; it raises DataError where
    that is not of the form that the task takes. `fields` are the parts of an input that is a mapping, the first ones
    of which can be given by name too. `gather(fields)` makes inputs of them; `is_one` tells one input from a list.
    `needed` are the fields that no input lacks, where it has to be a mapping. `gives` are the parts of an answer with
    their types, where the usual options give such. `read_words(words)` makes inputs of words on a command line.
    `alone` makes the result of one input out of its answer, and `together` that of a list out of theirs.
    """

    options: type[Params]
    ask: Callable[[Any, Any, Known], Question]
    fields: tuple[str, ...]
    needed: tuple[str, ...] = ()
    gives: Mapping[str, type] = field(default_factory=dict)
    gather: Callable[[Mapping[str, Any]], Any] = dict
    is_one: Callable[[Any, Any], bool] = lambda given, _: not isinstance(given, list | tuple)
    read_words: Callable[[Sequence[str]], list[Any]] = list
    alone: Callable[[Any, Any, Any], Any] = lambda answer, given, options: answer
    together: Callable[[list[Any]], Any] = lambda answers: answers


def text_of(value: object, what: str = "the input") -> str:
    """A text that was asked with. Raises DataError."""
    if not isinstance(value, str):
        raise DataError(f"{what}: is {_encoding.kind_of(value)}; give text")
    _encoding.require_unicode([value], what)
    return value


def parts_of(given: object, fields: Sequence[str], needed: Sequence[str]) -> dict[str, Any]:
    """An input that is a mapping of these fields. Raises DataError for others, and where what is needed is missing."""
    if not isinstance(given, Mapping):
        raise DataError(f"the input: is {_encoding.kind_of(given)}; give a mapping with {' and '.join(needed)}")
    for name in given:
        if name not in fields:
            raise DataError(f"the input: has {shown(name)}, which is not known; give {', '.join(fields)}")
    for name in needed:
        if name not in given:
            raise DataError(f"the input: has no {name}; give {', '.join(needed)}")
    return dict(given)


def softmax(logits: Array) -> Array:
    """Shares along the last axis."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: Array = shifted / shifted.sum(axis=-1, keepdims=True)
    return shares


def best(scores: Array, count: int | None) -> list[int]:
    """The places of the `count` highest of [N] scores, highest first and equal ones in their order; of all if None."""
    order: list[int] = np.argsort(-scores, kind="stable")[:count].tolist()
    return order
