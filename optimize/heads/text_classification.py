"""Text classification: one label, several labels, or a number for a text or a pair of texts.

Which of the three is what `problem_type` in the checkpoint's config says, and else what
transformers would infer: one output is a regression, lists of labels are multi-label. A list of one
for one output is a class that a text has or has not, scored by accuracy at a sigmoid of 0.5. Layouts
follow GLUE (Wang et al., 2018); pairs come first, so that a pair is never read as half of itself.
The gold of an example says what it is: an int is a class, a tuple of 0/1 is a set of classes, a
float is a number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from optimize.errors import DataError, shown
from optimize.evaluate.classes import class_f1
from optimize.heads import _encoding, _metrics
from optimize.heads._metrics import Array
from optimize.interfaces import ClassCounts, Encoded, Feature, Feed, Head, Row, Said, Score, Text

NAME = "text-classification"
LABEL = ("label", "labels", "score", "class", "target", "category", "intent", "emotion")
ONE_OUTPUT = ("0", "1")
"""Names of the classes that one output tells apart."""
NO_CLASSES = "none"
"""What a set without a class is called."""
WORST_ERROR = 1e30  # keeps a model that answers NaN out of the average

Problem = Literal["single_label_classification", "multi_label_classification", "regression"]
Gold = int | float | tuple[int, ...]


def faults(rows: Sequence[Row], config: Mapping[str, Any]) -> dict[int, str]:
    """Say what is wrong with rows: all or none have a second text, and labels are of one kind."""
    paired = _encoding.any_has(rows, "text_pair")
    parse_label = _label_parser(rows, config)

    def parse(row: Row) -> None:
        _encoding.string_in(row, "text")
        if paired:
            _encoding.string_in(row, "text_pair")
        parse_label(row)

    return _encoding.faults(rows, parse)


def encode(rows: Sequence[Row], text: Text) -> Encoded:
    """Tokenize texts, or pairs cut longest first."""
    _encoding.require_fit(NAME, rows, faults(rows, text.config))
    paired = _encoding.any_has(rows, "text_pair")
    seconds = [row["text_pair"] for row in rows] if paired else None
    gold = tuple(map(_label_parser(rows, text.config), rows))
    tokens = _encoding.tokenize(text, [row["text"] for row in rows], seconds)
    features = tuple(_encoding.feature(item.encoding.ids, i) for i, item in enumerate(tokens))
    classes = _encoding.class_names(text.config)
    return Encoded(features, gold, _encoding.count_cut(tokens), classes=classes, rows=tuple(rows))


def _label_parser(rows: Sequence[Row], config: Mapping[str, Any]) -> Callable[[Row], Gold]:
    """How a row's label is read, as the config and the rows together say."""
    classes = len(_encoding.class_names(config))
    match _problem(rows, config, classes):
        case "regression":
            if classes != 1:
                raise DataError(f"{NAME}: the model regresses {classes} numbers; give one with 1")
            return lambda row: _encoding.number_in(row, "label")
        case "multi_label_classification":
            # Decided for the split as a whole: [0, 1] alone may be two class ids, and multi-hot of two classes.
            multi_hot = all(_is_multi_hot(row.get("label"), classes) for row in rows)
            return lambda row: _label_set(row.get("label"), classes, multi_hot=multi_hot)
        case _:
            return lambda row: _encoding.class_id(row.get("label"), classes)


def _problem(rows: Sequence[Row], config: Mapping[str, Any], classes: int) -> Problem:
    stated: Problem | None = config.get("problem_type")
    # transformers infers it from the labels' type as well; here a list of classes, there a tensor of floats.
    listed = bool(rows) and _encoding.is_list(rows[0].get("label"))
    if classes == 1 and stated != "regression":
        return "multi_label_classification" if listed or stated else "regression"
    if stated:
        return stated
    return "multi_label_classification" if listed else "single_label_classification"


def _is_multi_hot(label: Any, classes: int) -> bool:
    """Whether a label is a list as long as there are classes, of 0 and 1 alone."""
    if not _encoding.is_list(label) or len(label) != classes:
        return False
    return all(isinstance(item, int | float | np.number) and item in (0, 1) for item in label)


def _label_set(label: Any, classes: int, *, multi_hot: bool) -> tuple[int, ...]:
    """Return a multi-hot tuple, from such or from a list of class ids."""
    if not _encoding.is_list(label):
        raise _encoding.unfit(f"has {shown(label)} as label", "give a list of class ids")
    if multi_hot:
        return tuple(map(int, label))
    hot = [0] * classes
    for item in label:
        hot[_encoding.class_id(item, classes)] = 1
    return tuple(hot)


def read(feature: Feature, outputs: Feed) -> Array:
    """Return the logits, [1, C]."""
    del feature
    return outputs["logits"].reshape(1, -1)


def decide(feature: Feature, rows: Array) -> Array:
    """Return the logits of the one decision, [C]."""
    del feature
    logits: Array = rows[0]
    return logits


def score(encoded: Encoded, answers: Sequence[Array]) -> Score:
    """Score [N, C] logits as what the gold says they are."""
    logits = np.stack(answers).astype(np.float64)
    names = _names(encoded, logits)
    match encoded.gold[0]:
        case float():
            return _score_numbers(logits[:, 0], np.array(encoded.gold))
        case tuple():
            # A class belongs to the set where its sigmoid is above 0.5, which is where its logit is above 0.
            sets = np.where(np.isnan(logits), _metrics.NO_CLASS, logits > 0)
            if logits.shape[1] == 1:
                return _score_classes(sets[:, 0], np.array(encoded.gold)[:, 0], ONE_OUTPUT)
            return _score_sets(sets, np.array(encoded.gold), names)
        case _:
            return _score_classes(_metrics.decided(logits), np.array(encoded.gold), names)


def _names(encoded: Encoded, logits: Array) -> tuple[str, ...]:
    return encoded.classes or tuple(map(str, range(logits.shape[1])))


def _score_classes(predicted: Array, gold: Array, names: Sequence[str]) -> Score:
    right = predicted == gold
    return Score(
        metric="accuracy",
        statistics=right[:, None].astype(np.float64),
        aggregate=_metrics.mean_of_first,
        decisions=predicted,
        right=right,
        others={"macro_f1": _metrics.macro_f1(predicted, gold)},
        classes=_metrics.counts_of(predicted, gold, names),
    )


def _score_sets(predicted: Array, gold: Array, names: Sequence[str]) -> Score:
    claimed = predicted == 1
    counts = np.stack([claimed & (gold == 1), claimed, gold == 1], axis=2).astype(np.int8)
    right = (predicted == gold).all(axis=1)
    macro = float(class_f1(counts.sum(axis=0)).mean())
    return Score(
        metric="f1",
        statistics=counts.sum(axis=1).astype(np.float64),
        aggregate=_metrics.micro_f1,
        decisions=predicted.ravel(),
        right=right,
        others={"macro_f1": macro, "subset_accuracy": float(right.mean())},
        classes=ClassCounts(tuple(names), counts),
    )


def _score_numbers(predicted: Array, gold: Array) -> Score:
    statistics = np.stack([predicted, gold], axis=1)
    errors = np.nan_to_num((predicted - gold) ** 2, nan=WORST_ERROR, posinf=WORST_ERROR)
    return Score(
        metric="spearman",
        statistics=statistics,
        aggregate=_metrics.spearman,
        decisions=predicted,
        ordinal=True,
        others={"pearson": _metrics.pearson(statistics), "mse": float(errors.mean())},
    )


def say(encoded: Encoded, answers: Sequence[Array], sure: Sequence[Array]) -> list[Said]:
    """Name the classes, or give the numbers; of a set, the class that is least sure says how sure it is."""
    logits, gold = np.stack(answers).astype(np.float64), encoded.gold
    match gold[0]:
        case float():
            return [Said(f"{ours:.4g}", f"{right:.4g}") for ours, right in zip(logits[:, 0], gold, strict=True)]
        case tuple():
            return _say_sets(logits, np.array(gold), _names(encoded, logits))
        case _:
            chosen = _metrics.decided(logits).tolist()
            tops = [float(each[0]) for each in sure]
            return _metrics.say_classes(chosen, gold, tops, [_names(encoded, logits)] * len(gold))


def _say_sets(logits: Array, gold: Array, classes: Sequence[str]) -> list[Said]:
    sets, names = logits > 0, ONE_OUTPUT[1:] if logits.shape[1] == 1 else classes
    sure = np.nan_to_num(1.0 / (1.0 + np.exp(-np.abs(logits))))
    found = []
    for ours, right, tops in zip(sets, gold == 1, sure, strict=True):
        decisions = tuple(zip(tops.tolist(), (ours == right).tolist(), strict=True))
        words = [", ".join(name for name, has in zip(names, side, strict=True) if has) for side in (ours, right)]
        found.append(Said(words[0] or NO_CLASSES, words[1] or NO_CLASSES, float(tops.min()), decisions))
    return found


def constants(encoded: Encoded) -> Iterable[Sequence[Array]]:
    """Return the logits of the commonest class, or of the set of classes with the best F1; a number orders nothing."""
    match encoded.gold[0]:
        case float():
            best = np.zeros(1)
        case (_,):
            best = np.where(np.mean(encoded.gold, axis=0) > 0.5, 1.0, -1.0)
        case tuple():
            best = _best_set(np.array(encoded.gold))
        case _:
            counts = np.bincount(encoded.gold)
            best = np.eye(len(counts))[counts.argmax()]
    yield [best] * len(encoded.gold)


def _best_set(gold: Array) -> Array:
    """Logits, [C], of the set of classes that has the best F1 where every example of [N, C] is given it."""
    counts = gold.sum(axis=0)
    order = np.argsort(-counts, kind="stable")
    sizes = np.arange(1, len(counts) + 1)
    # F1 = 2 true / (predicted + gold); of all sets of one size, the commonest classes have the most true ones.
    scores = 2.0 * np.cumsum(counts[order]) / (len(gold) * sizes + counts.sum())
    chosen = order[: scores.argmax() + 1]
    return np.where(np.isin(np.arange(len(counts)), chosen), 1.0, -1.0)


HEAD = Head(
    name=NAME,
    auto_class="AutoModelForSequenceClassification",
    outputs=("logits",),
    reads="first token",
    rows_are="logits",
    dataset=(
        {"text": ("premise",), "text_pair": ("hypothesis",), "label": LABEL},
        {"text": ("sentence1",), "text_pair": ("sentence2",), "label": LABEL},
        {"text": ("question1",), "text_pair": ("question2",), "label": LABEL},
        {"text": ("question",), "text_pair": ("sentence",), "label": LABEL},
        {"text": ("text1",), "text_pair": ("text2",), "label": LABEL},
        {
            "text": ("text", "sentence", "review", "content", "tweet", "comment", "utterance"),
            "text_pair?": ("text_pair",),
            "label": LABEL,
        },
    ),
    metric="accuracy",
    weights=("pre_classifier.weight", "classifier.weight"),
    faults=faults,
    encode=encode,
    read=read,
    decide=decide,
    score=score,
    constants=constants,
    aggregates={"accuracy": _metrics.mean_of_first, "f1": _metrics.micro_f1, "spearman": _metrics.spearman},
    say=say,
    labels="label",
    example=("A sentence.",),
)
