"""Answers of a published model as `optimize.using` gives them, by numpy, tokenizers and the model's engine.

This file is copied beside a model and stands by itself; a test holds it to `optimize.using`. `serving.json` says what
the model is for. An input is a text, or, where the task has several fields, a mapping of them. Each input is run by
itself, since models of dynamic INT8 answer otherwise in a batch; its choices are run together, and so are its windows.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

SETTINGS = "serving.json"
MOST_ROWS = 8
"""Windows that are run at a time."""
OVERLAP_TOKENS, QUESTION_TOKENS, ANSWER_TOKENS, CANDIDATES = 128, 64, 15, 12
DECIDING_TOKENS, DECIDING_BEST = 30, 20
"""Longest answer, and best starts and ends, of the spans that no answer is held against."""
BEST_WORDS = 5
OUTSIDE = "O"

Array = np.ndarray[Any, Any]
Feed = dict[str, Array]
Run = Callable[[Feed], Feed]


@dataclass(frozen=True)
class Known:
    """What answers are made by besides outputs: the settings, the checkpoint's config, the tokenizer.

    How the library cuts is kept in its tokenizer, so `cutting` is a second one, for one thread at a time, with `lock`.
    """

    settings: Mapping[str, Any]
    config: Mapping[str, Any]
    tokenizer: Tokenizer
    cutting: Tokenizer
    lock: Any = field(default_factory=threading.Lock)

    @property
    def task(self) -> str:
        """The task's name, as transformers has it."""
        return str(self.settings["task"])

    @property
    def pad(self) -> int:
        """The token that pads."""
        return int(self.settings["pad"] or 0)

    def label(self, index: int) -> str:
        """The name of a class."""
        return str((self.config.get("id2label") or {}).get(str(index), f"LABEL_{index}"))

    def encode(
        self, first: str, second: str | None = None, *, strategy: str = "longest_first", stride: int = 0
    ) -> list[Encoding]:
        """A text, or a pair, in windows of the longest text that the model takes, which share `stride` tokens."""
        whole, most = self.tokenizer.encode(first, second), int(self.settings["max_tokens"])
        if len(whole) <= most:
            return [whole]
        with self.lock:
            self.cutting.enable_truncation(most, stride=stride, strategy=strategy, direction=self.settings["side"])
            found = self.cutting.encode(first, second)
        return [found, *found.overflowing]


def read_known(folder: Path) -> Known:
    """What a folder says of its model; no model is opened."""
    from tokenizers import Tokenizer

    settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tokenizers = []
    for _ in range(2):
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        tokenizers.append(tokenizer)
    return Known(settings, config, *tokenizers)


def open_model(folder: Path) -> Callable[[Any], Any]:
    """A function from one input to its answer."""
    known = read_known(folder)
    run = ENGINES[known.settings["engine"]](folder, known.settings)

    def predict(given: Any) -> Any:
        rows = encode(known, given)
        return answer(known, given, rows, _in_batches(run, feed_of(known, rows)))

    return predict


def _in_batches(run: Run, feed: Feed) -> Feed:
    """Outputs of a feed, of which so many rows are run at a time as memory surely takes."""
    parts = []
    for at in range(0, len(feed["input_ids"]), MOST_ROWS):
        parts.append(run({name: array[at : at + MOST_ROWS] for name, array in feed.items()}))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


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
        return [_choice_row(known, fields["context"], each) for each in _continuations(fields)]
    if known.task == "question-answering":
        return _windows(known, fields["question"], fields["context"])
    first, *second = fields.values()
    return known.encode(known.settings["prompt"] + first, *second)[:1]


def _continuations(fields: Mapping[str, Any]) -> list[str]:
    """What each choice makes of what goes on from the context: after a start, or in or after a question."""
    start, question = fields.get("start"), fields.get("question")
    if start:
        return [f"{start} {choice}" for choice in fields["choices"]]
    if not question:
        return list(fields["choices"])
    gap = question if "_" in question else f"{question} _"
    return [gap.replace("_", choice) for choice in fields["choices"]]


def _choice_row(known: Known, context: str, choice: str) -> Encoding:
    """A choice, whose context is cut first, since choices without their ends may be the same."""
    others = sum(sequence != 0 for sequence in known.tokenizer.encode(context, choice).sequence_ids)
    strategy = "only_first" if others < known.settings["max_tokens"] else "longest_first"
    return known.encode(context, choice, strategy=strategy)[0]


def _windows(known: Known, question: str, context: str) -> list[Encoding]:
    """Windows over a context, each behind its question, of which no more than half of the tokens are left."""
    for name, text in (("question", question), ("context", context)):
        if not text:
            raise ValueError(f"{name}: is empty; give text")
    most = int(known.settings["max_tokens"])
    asked = known.tokenizer.encode(question, add_special_tokens=False)
    if len(asked) > most // 2:
        question = question[: asked.offsets[min(QUESTION_TOKENS, most // 4) - 1][1]]
    room, stride = most - len(known.tokenizer.encode(question, "")), min(most // 2, OVERLAP_TOKENS)
    return known.encode(question, context, strategy="only_second", stride=stride if stride < room else room // 2)


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
        least = 2 if name == "choices" else 1
        if not isinstance(texts, list) or len(texts) < least or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"{name}: has to be {'a list of two texts or more' if least > 1 else 'a text'}")
        if any("\ud800" <= character <= "\udfff" for text in texts for character in text):
            raise ValueError(f"{name}: has half a character; write it as UTF-8")
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
        with np.errstate(over="ignore"):
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
    (row,), mask, decode = rows, known.settings["mask"], known.tokenizer.decode
    places = [place for place, token in enumerate(row.ids) if token == mask]
    if not places:
        name = "[MASK]" if mask is None else known.tokenizer.id_to_token(mask)
        raise ValueError(f"text: has no {name}, which stands where a word is to be found")
    found, alone = [], len(places) == 1
    for place in places:
        shares = softmax(outputs["logits"][0, place].astype(np.float32))
        group = []
        for token in np.argsort(-shares, kind="stable")[:BEST_WORDS].tolist():
            ids = [*row.ids[:place], token, *row.ids[place + 1 :]]
            word, sequence = decode([token], skip_special_tokens=False), decode(ids, skip_special_tokens=alone)
            group.append({"score": float(shares[token]), "token": token, "token_str": word, "sequence": sequence})
        found.append(group)
    return found[0] if alone else found


def _choose(_: Known, fields: Mapping[str, Any], rows: Sequence[Encoding], outputs: Feed) -> Any:
    shares = softmax(outputs["logits"].reshape(-1)[: len(rows)].astype(np.float32))
    best = int(shares.argmax())
    return {"choice": fields["choices"][best], "index": best, "score": float(shares[best])}


def _vectors(known: Known, _: Mapping[str, Any], rows: Sequence[Encoding], outputs: Feed) -> Any:
    (name,) = known.settings["outputs"]
    found = outputs[name][:1]
    return found[:, : len(rows[0].ids)].tolist() if found.ndim == 3 else found[0].tolist()


def _find(known: Known, fields: Mapping[str, Any], rows: Sequence[Encoding], outputs: Feed) -> Any:
    context, found = fields["context"], dict[str, dict[str, Any]]()
    null, scores = 1.0, list[tuple[float, float]]()
    for place, row in enumerate(rows):
        # [CLS] takes its share of what is likely, and stands for no answer.
        seen = [0, *(position for position, sequence in enumerate(row.sequence_ids) if sequence == 1)]
        logits = np.stack([outputs[name][place, seen] for name in ("start_logits", "end_logits")]).astype(np.float32)
        shares = softmax(logits)
        null = min(null, float(shares[:, 0].prod()))
        scores.append(_null_and_best(logits.astype(np.float64)))
        for first, last, score in _spans(shares[:, 1:]):
            start, end = _words(row, seen[first + 1], seen[last + 1])
            said = context[start:end]
            same = found.setdefault(said.lower(), {"score": 0.0, "start": start, "end": end, "answer": said})
            same["score"] += score
    threshold, (nones, bests) = known.settings["no_answer"], zip(*scores, strict=True)
    if threshold is not None and min(nones) - max(bests) > threshold:
        return {"score": null, "start": 0, "end": 0, "answer": ""}
    return max(found.values(), key=lambda each: each["score"], default=[])


def _null_and_best(logits: Array) -> tuple[float, float]:
    """What no answer scores in a window, and its best span, by sums of logits, [2, 1 + context], [CLS] first."""
    starts, ends = np.argsort(-logits[:, 1:], axis=1, kind="stable")[:, :DECIDING_BEST]
    length = ends[None, :] - starts[:, None] + 1
    sums = logits[0, 1 + starts][:, None] + logits[1, 1 + ends][None, :]
    allowed = (length >= 1) & (length <= DECIDING_TOKENS)
    return float(logits[:, 0].sum()), float(sums.max(initial=-np.inf, where=allowed))


def _spans(shares: Array) -> list[tuple[int, int, float]]:
    """The likeliest spans of shares [2, context]: first token, last token, share of the start times that of the end."""
    scores = np.tril(np.triu(np.outer(shares[0], shares[1])), ANSWER_TOKENS - 1).ravel()
    many = len(scores) > CANDIDATES
    chosen = np.argpartition(-scores, CANDIDATES)[:CANDIDATES] if many else np.arange(len(scores))
    chosen = chosen[np.argsort(-scores[chosen], kind="stable")]
    found = []
    for place in chosen[scores[chosen] > 0].tolist():
        found.append((*divmod(place, shares.shape[1]), float(scores[place])))
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
