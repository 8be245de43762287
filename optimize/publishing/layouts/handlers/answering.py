"""Answers of a published model as `transformers.pipeline` gives them, by numpy, tokenizers and the model's engine.

This file is copied beside a model and stands by itself. `serving.json` says what the model is for. An input is a text,
or, where the task has several fields, a mapping of them. Each input is run by itself, since models of dynamic INT8
answer otherwise in a batch; its choices or windows are run together. Question answering is that of transformers 4.57,
the last version with such a pipeline; multiple choice has none and answers with the choice that fits best.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

SETTINGS = "serving.json"
WINDOW_TOKENS, OVERLAP_TOKENS, ANSWER_TOKENS, CANDIDATES = 384, 128, 15, 12
BEST_WORDS = 5
OUTSIDE = "O"

Array = np.ndarray[Any, Any]
Feed = dict[str, Array]
Run = Callable[[Feed], Feed]


@dataclass(frozen=True)
class Known:
    """What answers are made by besides outputs: the settings, the checkpoint's config, the tokenizer, what pads."""

    settings: Mapping[str, Any]
    config: Mapping[str, Any]
    tokenizer: Tokenizer
    pad: int

    @property
    def task(self) -> str:
        """The task's name, as transformers has it."""
        return str(self.settings["task"])

    def label(self, index: int) -> str:
        """The name of a class."""
        return str(self.config.get("id2label", {}).get(str(index), f"LABEL_{index}"))


def read_known(folder: Path) -> Known:
    """What a folder says of its model; no model is opened."""
    from tokenizers import Tokenizer

    settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    limit, stride, strategy = int(settings["max_tokens"]), 0, "longest_first"
    if settings["task"] == "question-answering":
        limit = min(limit, WINDOW_TOKENS)
        stride, strategy = min(limit // 2, OVERLAP_TOKENS), "only_second"
    if settings["task"] == "multiple-choice":
        strategy = "only_first"  # choices without their ends may be the same
    tokenizer.enable_truncation(limit, stride=stride, strategy=strategy)
    return Known(settings, config, tokenizer, int(config.get("pad_token_id") or 0))


def open_model(folder: Path) -> Callable[[Any], Any]:
    """A function from one input to its answer."""
    known = read_known(folder)
    run = ENGINES[known.settings["engine"]](folder, known.settings)

    def predict(given: Any) -> Any:
        rows = encode(known, given)
        return answer(known, given, rows, run(feed_of(known, rows)))

    return predict


def _open_onnxruntime(folder: Path, settings: Mapping[str, Any]) -> Run:
    import onnxruntime

    provider = settings["provider"]
    if provider not in onnxruntime.get_available_providers():
        raise RuntimeError(f"{provider}: not in this onnxruntime; install the one that has it")
    session = onnxruntime.InferenceSession(str(folder / settings["model"]), providers=[provider])
    inputs = [each.name for each in session.get_inputs()]
    outputs = [each.name for each in session.get_outputs()]
    return lambda feed: dict(zip(outputs, session.run(None, {name: feed[name] for name in inputs}), strict=True))


def _open_openvino(folder: Path, settings: Mapping[str, Any]) -> Run:
    import openvino

    compiled = openvino.Core().compile_model(folder / settings["model"], "CPU")
    inputs = [each.get_any_name() for each in compiled.inputs]

    def run(feed: Feed) -> Feed:
        found = compiled({name: feed[name] for name in inputs})
        return {port.get_any_name(): found[port] for port in compiled.outputs}

    return run


ENGINES: Mapping[str, Callable[[Path, Mapping[str, Any]], Run]] = {
    "onnxruntime": _open_onnxruntime,
    "openvino": _open_openvino,
}


def encode(known: Known, given: Any) -> list[Encoding]:
    """The rows of an input: one, or one a choice, or one a window. Raises ValueError for what is no such input."""
    fields = fields_of(known, given)
    if known.task == "multiple-choice":
        return [known.tokenizer.encode(fields["context"], choice) for choice in fields["choices"]]
    first, *second = fields.values()
    encoding = known.tokenizer.encode(known.settings["prompt"] + first, *second)
    return [encoding, *encoding.overflowing] if known.task == "question-answering" else [encoding]


def fields_of(known: Known, given: Any) -> dict[str, Any]:
    """The fields of an input by name, in the order of the task; every one is text, and choices are a list of texts."""
    needed, optional = known.settings["inputs"], known.settings["optional"]
    if isinstance(given, str) and len(needed) == 1:
        given = {needed[0]: given}
    if not isinstance(given, Mapping) or not set(needed) <= set(given) <= {*needed, *optional}:
        text = "a text, or " if len(needed) == 1 else ""
        raise ValueError(f"an input has to be {text}an object of {', '.join([*needed, *optional])}")
    found = {name: given[name] for name in (*needed, *optional) if name in given}
    for name, value in found.items():
        texts = value if name == "choices" else [value]
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"{name}: has to be {'a list of texts' if name == 'choices' else 'a text'}")
    return found


def feed_of(known: Known, rows: Sequence[Encoding]) -> Feed:
    """Inputs of the model, [rows, T]; [1, choices, T] where an input is several choices."""
    length = max(len(row.ids) for row in rows)
    ids = np.full((len(rows), length), known.pad, dtype=np.int64)
    mask = np.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, : len(row.ids)], mask[place, : len(row.ids)] = row.ids, 1
    feed = {"input_ids": ids, "attention_mask": mask}
    return {name: array[None] for name, array in feed.items()} if known.task == "multiple-choice" else feed


def answer(known: Known, given: Any, rows: Sequence[Encoding], outputs: Feed) -> Any:
    """The answer to an input from its outputs, whose first axis is that of `feed_of`; as JSON can hold it."""
    return ANSWERS[known.task](known, fields_of(known, given), rows, outputs)


def _classify(known: Known, _: Mapping[str, Any], __: Sequence[Encoding], outputs: Feed) -> Any:
    logits, kind = outputs["logits"][0].astype(np.float32), known.config.get("problem_type")
    scores = softmax(logits)
    if kind == "regression":
        scores = logits
    elif kind == "multi_label_classification" or len(logits) == 1:
        scores = 1.0 / (1.0 + np.exp(-logits))
    best = int(scores.argmax())
    return {"label": known.label(best), "score": float(scores[best])}


def _tag(known: Known, fields: Mapping[str, Any], rows: Sequence[Encoding], outputs: Feed) -> Any:
    (row,), text, found = rows, fields["text"], []
    shares = softmax(outputs["logits"][0].astype(np.float32))
    for index, special in enumerate(row.special_tokens_mask):
        label = known.label(int(shares[index].argmax()))
        if not special and label != OUTSIDE:
            start, end = row.offsets[index]
            word = row.tokens[index] if row.ids[index] != known.settings["unk"] else text[start:end]
            entity = {"entity": label, "score": float(shares[index].max()), "index": index, "word": word}
            found.append(entity | {"start": start, "end": end})
    return found


def _fill(known: Known, _: Mapping[str, Any], rows: Sequence[Encoding], outputs: Feed) -> Any:
    (row,), mask = rows, known.settings["mask"]
    places = [place for place, token in enumerate(row.ids) if token == mask]
    if not places:
        raise ValueError(f"text: has no {known.tokenizer.id_to_token(mask)}, which stands where a word is to be found")
    found = []
    for place in places:
        shares = softmax(outputs["logits"][0, place].astype(np.float32))
        group = []
        for token in np.argsort(-shares, kind="stable")[:BEST_WORDS].tolist():
            ids = [*row.ids[:place], token, *row.ids[place + 1 :]]
            said = {"score": float(shares[token]), "token": token, "token_str": known.tokenizer.decode([token])}
            sequence = known.tokenizer.decode(ids, skip_special_tokens=len(places) == 1)
            group.append(said | {"sequence": sequence})
        found.append(group)
    return found[0] if len(found) == 1 else found


def _choose(_: Known, fields: Mapping[str, Any], rows: Sequence[Encoding], outputs: Feed) -> Any:
    shares = softmax(outputs["logits"].reshape(-1)[: len(rows)].astype(np.float32))
    best = int(shares.argmax())
    return {"choice": fields["choices"][best], "index": best, "score": float(shares[best])}


def _vectors(known: Known, _: Mapping[str, Any], rows: Sequence[Encoding], outputs: Feed) -> Any:
    (name,) = known.settings["outputs"]
    found = outputs[name][:1]
    return found[:, : len(rows[0].ids)].tolist() if found.ndim == 3 else found[0].tolist()


def _find(_: Known, fields: Mapping[str, Any], rows: Sequence[Encoding], outputs: Feed) -> Any:
    context, found = fields["context"], dict[str, dict[str, Any]]()
    for place, row in enumerate(rows):
        logits = np.stack([outputs[name][place, : len(row.ids)] for name in ("start_logits", "end_logits")])
        for first, last, score in _spans(row, logits.astype(np.float32)):
            start, end = _words(row, first, last)
            said = context[start:end]
            known = found.setdefault(said.lower(), {"score": 0.0, "start": start, "end": end, "answer": said})
            known["score"] += score
    return max(found.values(), key=lambda each: each["score"], default=None)


def _spans(row: Encoding, logits: Array) -> list[tuple[int, int, float]]:
    """The likeliest spans of a window: first token, last token, share of the start times that of the end."""
    inside = np.array([sequence == 1 for sequence in row.sequence_ids])
    seen = inside.copy()
    seen[0] = True  # [CLS] takes its share of what is likely, and is no answer
    shares = softmax(np.where(seen, logits, -10000.0))
    shares[:, ~inside] = 0.0
    scores = np.tril(np.triu(np.outer(shares[0], shares[1])), ANSWER_TOKENS - 1)
    found = []
    for best in np.argsort(-scores, axis=None, kind="stable")[:CANDIDATES].tolist():
        first, last = divmod(best, len(inside))
        if inside[first] and inside[last] and scores[first, last] > 0:
            found.append((first, last, float(scores[first, last])))
    return found


def _words(row: Encoding, first: int, last: int) -> tuple[int, int]:
    """Where the words begin and end in the context that a span of tokens lies in; the tokens, where there are none."""
    words = row.token_to_word(first), row.token_to_word(last)
    begin, end = (None if word is None else row.word_to_chars(word, 1) for word in words)
    if begin is None or end is None:
        return row.offsets[first][0], row.offsets[last][1]
    return begin[0], end[1]


ANSWERS: Mapping[str, Callable[[Known, Mapping[str, Any], Sequence[Encoding], Feed], Any]] = {
    "text-classification": _classify,
    "token-classification": _tag,
    "fill-mask": _fill,
    "multiple-choice": _choose,
    "feature-extraction": _vectors,
    "question-answering": _find,
}


def softmax(logits: Array) -> Array:
    """Shares along the last axis."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: Array = shifted / shifted.sum(axis=-1, keepdims=True)
    return shares
