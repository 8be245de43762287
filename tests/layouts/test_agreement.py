"""What is copied beside a model does as `optimize.using` does: of inputs the same rows, of outputs the same answers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report.conftest import REQUEST
from served import record_of

from optimize.errors import DataError
from optimize.evaluate.predict import own_outputs
from optimize.heads import HEADS, head_of
from optimize.manifest import Manifest
from optimize.publishing.layouts.handlers import answering
from optimize.publishing.layouts.served import write_settings
from optimize.using.asking import read_known
from optimize.using.tasks import task_of

SHORT = 32
"""Tokens that a model is told to take, so that texts are too long."""
WORDS = ("the", "train", "Ada", "late,", "London.", "(was)", "naïve", "漢字", "xylophonically", "😀", "it's\nnot_", "a")
DRAWS = 12


def text(rng: np.random.Generator, most: int = 60) -> str:
    return " ".join(rng.choice(WORDS, size=rng.integers(1, most)))


def choices(rng: np.random.Generator) -> list[str]:
    return [text(rng, 50) for _ in range(rng.integers(2, 5))]


INPUTS: dict[str, list[Callable[[np.random.Generator], Any]]] = {
    "feature-extraction": [text],
    "fill-mask": [
        lambda rng: f"{text(rng, 3)} [MASK]",
        lambda rng: f"[MASK] {text(rng, 5)} [MASK] {text(rng)} [MASK]",
    ],
    "text-classification": [text, lambda rng: {"text": text(rng), "text_pair": text(rng)}, lambda _: ""],
    "token-classification": [text],
    "question-answering": [
        lambda rng: {"question": text(rng, 8), "context": text(rng, 200)},
        lambda rng: {"question": text(rng, 60), "context": text(rng, 20)},
        lambda _: {"question": "Who?", "context": " "},
    ],
    "multiple-choice": [
        lambda rng: {"context": text(rng), "choices": choices(rng)},
        lambda rng: {"context": text(rng), "choices": choices(rng), "question": text(rng, 5)},
        lambda rng: {"context": text(rng), "choices": choices(rng), "question": "It was _ .", "start": ""},
        lambda rng: {"context": text(rng), "choices": choices(rng), "start": "So"},
    ],
}
"""Inputs by head, drawn at random."""


REFUSED = [
    ("fill-mask", "No mask."),
    ("multiple-choice", {"context": "A.", "choices": ["One."]}),
    ("multiple-choice", {"context": "A."}),
    ("question-answering", {"question": "", "context": "A."}),
    ("question-answering", {"question": "Who?", "context": "A.", "title": "B."}),
    ("text-classification", "\ud800"),
    ("text-classification", {"text": "A.", "text_pair": 3}),
]


def record(head: str, **changes: Any) -> Manifest:
    return record_of(head, request={**REQUEST, "head": head, "max_tokens": SHORT}, **changes)


def outputs_of(head: str, folder: Path, shape: tuple[int, ...], classes: int, rng: np.random.Generator) -> Any:
    """What a model of this head might give to ids of this shape."""
    names = head_of(head, folder).outputs
    if len(names) > 1:
        return {name: rng.normal(scale=3, size=shape).astype(np.float32) for name in names}
    sizes = {"multiple-choice": shape[:2], "text-classification": (1, classes)}
    wide = sizes.get(head, (1, 8) if names == ("sentence_embedding",) else (*shape, classes))
    return {names[0]: rng.normal(scale=3, size=wide).astype(np.float32)}


def same(ours: Any, theirs: Any) -> None:
    assert json.dumps(ours, default=np.ndarray.tolist) == json.dumps(theirs, default=np.ndarray.tolist)


def compare(head: str, folder: Path, said: Manifest) -> list[Any]:
    """Ask both; gives the answers that they agree on."""
    write_settings(folder, said)
    known, copied, rng = read_known(folder, said), answering.read_known(folder), np.random.default_rng(7)
    judged, found = head_of(head, folder), []
    for draw in INPUTS[head] * DRAWS:
        given, task = draw(rng), task_of(judged)
        question, rows = task.ask(given, task.options(), known), answering.encode(copied, given)
        feed = answering.feed_of(copied, rows)
        assert ids_of(feed) == [ids for each in question.features for ids in ids_of(each.inputs)], given
        classes = known.config["vocab_size"] if head == "fill-mask" else len(known.classes)
        outputs = outputs_of(head, folder, feed["input_ids"].shape, classes, rng)
        own = [own_outputs(outputs, place, each, head=judged) for place, each in enumerate(question.features)]
        found.append(answering.answer(copied, given, rows, outputs))
        same(found[-1], question.answer(own))
    return found


def ids_of(feed: Any) -> list[list[int]]:
    """Each row without its padding."""
    rows, masks = (np.atleast_2d(np.squeeze(feed[name])) for name in ("input_ids", "attention_mask"))
    return [row[mask > 0].tolist() for row, mask in zip(rows, masks, strict=True)]


@pytest.fixture
def copied(checkpoint, tmp_path) -> Callable[..., Path]:
    def copy(head: str, **tokenizer: Any) -> Path:
        folder = tmp_path / head
        shutil.copytree(checkpoint(head), folder, ignore=shutil.ignore_patterns("*.safetensors"))
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        (folder / "tokenizer_config.json").write_text(json.dumps(settings | tokenizer))
        return folder

    return copy


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("head", sorted(HEADS))
def test_both_answer_alike(head, side, copied):
    answers = compare(head, copied(head, truncation_side=side), record(head))
    assert len(answers) == DRAWS * len(INPUTS[head])


@pytest.mark.parametrize(("head", "given"), REFUSED)
def test_both_refuse_alike(head, given, copied):
    folder = copied(head)
    write_settings(folder, record(head))
    task, ours, theirs = task_of(HEADS[head]), read_known(folder, record(head)), answering.read_known(folder)
    with pytest.raises(DataError):
        task.ask(given, task.options(), ours)
    with pytest.raises(ValueError, match=r": has|: is|an input has to be"):
        answering.answer(theirs, given, answering.encode(theirs, given), {})


@pytest.mark.parametrize("kind", ["regression", "multi_label_classification", "single_label_classification"])
def test_both_score_classes_alike(kind, copied):
    folder = copied("text-classification")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "problem_type": kind, "id2label": {"0": "only"}}))
    compare("text-classification", folder, record("text-classification"))


def test_both_give_no_answer_by_the_runs_threshold(copied):
    head = "question-answering"
    answers = compare(head, copied(head), record(head, thresholds={"no_answer": -4.0}))
    none = [each["answer"] == "" for each in answers]
    assert any(none)
    assert not all(none)


def test_both_put_an_encoders_prompt_before_a_text(encoder_folder):
    head = "feature-extraction"
    folder = encoder_folder(described={"prompts": {"query": "query: "}, "default_prompt_name": "query"})
    compare(head, folder, record(head))
    assert json.loads((folder / answering.SETTINGS).read_text())["prompt"] == "query: "
