"""A config's classes: what is made right, and what is refused because nobody knows which of two words is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from source.cases import configure

from optimize.errors import SourceError
from optimize.heads._encoding import class_names
from optimize.source.finding import inspect_checkpoint

ID2LABEL = {"0": "negative", "1": "positive"}
LABEL2ID = {"negative": 0, "positive": 1}


@pytest.mark.parametrize(
    "given",
    [
        {"label2id": None},
        {"label2id": {"LABEL_0": 0, "LABEL_1": 1}},
        {"id2label": {"1": "positive", "0": "negative"}, "label2id": {"positive": 1, "negative": 0, "neg": 0}},
        {"num_labels": 2},
    ],
    ids=["none", "placeholders", "another order, and a name more", "counted"],
)
def test_label2id_is_that_of_id2label(changed, acquire, given: dict[str, Any]) -> None:
    entry = acquire(changed(configure(**{"id2label": ID2LABEL, **given})))

    config = json.loads((entry.artifact.path / "config.json").read_text(encoding="utf-8"))
    assert (config["id2label"], config["label2id"]) == (ID2LABEL, LABEL2ID)


def test_classes_without_names_are_counted(changed, acquire) -> None:
    entry = acquire(changed(configure(id2label=None, label2id=None, num_labels=2)))

    config = json.loads((entry.artifact.path / "config.json").read_text(encoding="utf-8"))
    assert class_names(config) == ("LABEL_0", "LABEL_1")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"id2label": {"0": "a", "2": "c"}}, "is '0, 2', not the numbers from 0 to 1 (1 is missing)"),
        ({"id2label": {"1": "a", "2": "b"}}, "(0 is missing)"),
        ({"id2label": {"a": 0, "b": 1}}, "is 'a, b', not the numbers"),
        ({"id2label": {"0": "a", "1": None}}, "id2label in its config is 'None' for class '1', not a name"),
        ({"id2label": None}, "has label2id and no id2label; add id2label"),
        ({"label2id": {"negative": 1, "positive": 0}}, "says that 'negative' is class 1, and id2label does not"),
        ({"num_labels": 3}, "num_labels in its config is 3, and id2label names 2 classes"),
        ({"id2label": {"0": "a", "1": "b", "2": "c"}}, "classifier.weight has the shape [2, 128], and its config 3"),
        ({"id2label": None, "label2id": None, "num_labels": 7}, "and its config 7 classes; correct id2label"),
    ],
    ids=str,
)
def test_classes_that_contradict_are_refused_before_anything_is_loaded(changed, given: dict[str, Any], says) -> None:
    folder = changed(configure(**{"id2label": ID2LABEL, "label2id": LABEL2ID, **given}))

    with pytest.raises(SourceError) as refused:
        inspect_checkpoint(str(folder))

    assert says in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
