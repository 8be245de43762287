"""What a config.json says of a model's classes, held against itself and against the weights.

`id2label` decides, as in transformers, which takes the number of its entries for the number of classes and never looks
at the ids. `label2id` is written anew from it. One that says the opposite is refused: nobody knows which is right.
"""

from __future__ import annotations

from collections.abc import Mapping

from optimize.checkpoint import Config
from optimize.data.classes import classes_of
from optimize.errors import SourceError, brief
from optimize.interfaces import Head

CLASSES = "classifier.weight"
MOST_LABELS = 2**20


def check_labels(config: Config, *, where: str) -> None:
    """Refuse classes that are no mapping, not numbered from 0 one by one, or counted or named in two ways."""
    count = config.get("num_labels", 2)
    if type(count) is not int or not 1 <= count <= MOST_LABELS:
        raise _refusal(where, "num_labels", brief(count), f"a whole number from 1 to {MOST_LABELS}")
    for key in ("id2label", "label2id"):
        if not isinstance(config.get(key) or {}, Mapping):
            raise _refusal(where, key, brief(config[key]), "a mapping")
    names, ids = config.get("id2label") or {}, config.get("label2id") or {}
    if ids and not names:
        raise SourceError(f"{where}: its config has label2id and no id2label; add id2label")
    if names:
        _check_names(names, where=where)
        _check_ids(names, ids, where=where)
        if config.get("num_labels", len(names)) != len(names):
            raise SourceError(
                f"{where}: num_labels in its config is {count}, and id2label names {len(names)} classes; correct one"
            )


def _check_names(names: Mapping[str, object], *, where: str) -> None:
    for number in range(len(names)):
        if str(number) not in names:
            known = brief(", ".join(names))
            raise _refusal(where, "id2label", known, f"the numbers from 0 to {len(names) - 1} ({number} is missing)")
    for key, name in names.items():
        if isinstance(name, bool) or not isinstance(name, str | int | float):
            raise _refusal(where, "id2label", f"{brief(name)}' for class '{key}", "a name")


def _check_ids(names: Mapping[str, object], ids: Mapping[str, object], *, where: str) -> None:
    known = set(map(str, names.values()))
    for name, number in ids.items():
        if name in known and str(names.get(str(number))) != name:
            raise SourceError(
                f"{where}: label2id in its config says that '{brief(name)}' is class {brief(number)}, and id2label "
                "does not; correct one"
            )


def check_classes(stored: Mapping[str, tuple[int, ...]], head: Head, config: Config, *, where: str) -> None:
    """Refuse weights of a head with classes of its own that are another number than the config names."""
    classes, shape = classes_of(config).count, stored.get(CLASSES, ())
    if CLASSES in head.weights and head.labels and not head.has_choices and shape[:1] != (classes,):
        raise SourceError(
            f"{where}: {CLASSES} has the shape {list(shape)}, and its config {classes} classes; correct id2label"
        )


def _refusal(where: str, name: str, value: str, must: str) -> SourceError:
    return SourceError(f"{where}: {name} in its config is '{value}', not {must}; save the model again")
