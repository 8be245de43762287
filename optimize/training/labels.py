"""Right answers in the order in which a student's answers come, for losses that use labels too.

What the gold of an example is differs by head, and so does where a feature says which tokens it is about. An answer of
which the data do not say where in its context it begins labels nothing where it stands there twice, nor does one that
lies beyond the window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from optimize.interfaces import Feature

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

Answers = Literal["classes", "sets", "values", "vectors"]
"""What a row of a model's answer is: logits of classes, of a set of them, numbers, or a vector."""

Gold = Any
"""What the right answer of an example is: a class, classes of words, a set, a number or texts, by its head."""

NO_LABEL = -100
"""What PyTorch's cross entropy passes over."""
BEYOND = 2**20
"""A place that no text reaches."""


def labels_of(features: Sequence[Feature], gold: Sequence[Gold], answers: Answers) -> Tensor | None:
    """What `Answer.rows` of these features should be: classes [N], sets [N, C], values [N, 1]; None without labels."""
    import numpy as np
    import torch

    if answers == "vectors" or any(gold[feature.example] is None for feature in features):
        return None
    if answers == "classes":
        found = np.concatenate([_classes(feature, gold[feature.example]) for feature in features], axis=-1)
        return torch.from_numpy(found.reshape(-1))
    stated = torch.tensor([gold[feature.example] for feature in features], dtype=torch.float32)
    return stated.reshape(len(features), -1)


def teaching(features: Sequence[Feature], gold: Sequence[Gold], answers: Answers) -> list[Feature]:
    """The features of which anything has a label; of a batch without any, a mean loss would be no number."""
    found = []
    for feature in features:
        labels = labels_of([feature], gold, answers)
        if labels is not None and bool((labels != NO_LABEL).any()):
            found.append(feature)
    return found


def labels_by_name(features: Sequence[Feature], gold: Sequence[Gold], answers: Answers) -> dict[str, Tensor]:
    """Labels of a batch as transformers' own classes take them beside its inputs, which are padded to their longest.

    A label for every token [B, T] where some decide, first and last token [B] where spans are looked for, else one
    for each text: [B], or [B, C] for sets, [B, 1] for values.
    """
    import torch

    if answers != "classes" or not any(name in features[0].extra for name in ("offsets", "positions")):
        labels = labels_of(features, gold, answers)
        return {} if labels is None else {"labels": labels}
    if "offsets" in features[0].extra:
        spans = torch.tensor([_span(feature, gold[feature.example]) for feature in features])
        # These classes take numbers beyond the text for none, and negative ones for the first token.
        spans[spans == NO_LABEL] = BEYOND
        return {"start_positions": spans[:, 0], "end_positions": spans[:, 1]}
    labels = torch.full((len(features), max(feature.tokens for feature in features)), NO_LABEL)
    for row, feature in enumerate(features):
        classes = torch.from_numpy(_classes(feature, gold[feature.example]))
        labels[row, torch.from_numpy(feature.extra["positions"])] = classes
    return {"labels": labels}


def _classes(feature: Feature, gold: Gold) -> npt.NDArray[np.int64]:
    """Class ids of what the head reads of a feature: [rows], or [2, 1] for a span's first and last token."""
    import numpy as np

    extra = feature.extra
    found: npt.ArrayLike = [gold]
    if "gold" in extra:
        found = extra["gold"]
    elif "words" in extra:
        found = gold[extra["words"]]
    elif "offsets" in extra:
        found = np.array(_span(feature, gold)).reshape(2, 1)
    return np.asarray(found, dtype=np.int64)


def _span(feature: Feature, texts: Sequence[str]) -> tuple[int, int]:
    """First and last token of the answer, where its place is beyond doubt and in this window; of none, the [CLS]."""
    context, offsets, positions = (feature.extra[name] for name in ("context", "offsets", "positions"))
    if not texts:
        return int(positions[0]), int(positions[0])
    nulls = feature.extra["nulls"]
    offsets, positions = offsets[nulls:], positions[nulls:]
    nowhere = NO_LABEL, NO_LABEL
    start = feature.extra.get("start")
    if start is None or not context.startswith(texts[0], start):
        start = context.find(texts[0]) if context.count(texts[0]) == 1 else None
    if start is None or not len(positions):
        return nowhere
    end = start + len(texts[0])
    within = positions[(offsets[:, 0] < end) & (offsets[:, 1] > start)]
    # A window that holds a part of the answer would teach a span that is not the answer.
    if not len(within) or offsets[0, 0] > start or offsets[-1, 1] < end:
        return nowhere
    return int(within[0]), int(within[-1])


def label_loss(rows: Tensor, labels: Tensor, answers: Answers) -> Tensor:
    """The task's usual loss: cross entropy, for sets that of each class, for values the squared error."""
    from torch.nn import functional

    if answers == "values":
        return functional.mse_loss(rows, labels)
    if answers == "sets":
        return functional.binary_cross_entropy_with_logits(rows, labels)
    total = functional.cross_entropy(rows, labels, ignore_index=NO_LABEL, reduction="sum")
    # PyTorch's own mean is NaN where nothing of a batch has a label.
    return total / (labels != NO_LABEL).sum().clamp_min(1)
