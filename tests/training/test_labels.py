"""Labels: right answers beside the rows that answer them, for every head; what is in doubt labels nothing."""

import dataclasses

import numpy as np
import pytest
import torch

from optimize.checkpoint import load_model
from optimize.heads import HEADS
from optimize.training.batches import answer, answers_of, make_batch
from optimize.training.labels import NO_LABEL, label_loss, labels_of

NAMES = sorted(HEADS)


@pytest.mark.parametrize("head", NAMES)
def test_labels_stand_beside_the_rows_that_answer_them(head, context):
    here = context(head)
    features, gold = here.calibration.features[:4], here.calibration.gold
    kind = answers_of(here.head, here.calibration)
    labels = labels_of(features, gold, kind)
    if kind == "vectors":
        assert labels is None
        return
    model = load_model(here.reference.path, here.head.auto_class)
    with torch.no_grad():
        batch = make_batch(features, pad_id=0)
        rows = answer(model, batch, here.head).rows
    assert len(labels) == len(rows)
    assert torch.isfinite(label_loss(rows, labels, kind))
    alone = torch.cat([labels_of([feature], gold, kind) for feature in features])
    assert sorted(alone.flatten().tolist()) == sorted(labels.flatten().tolist())


def test_the_label_of_a_question_is_where_its_answer_stands(context):
    here = context("question-answering")
    for feature in here.calibration.features:
        text = here.calibration.gold[feature.example][0]
        start, stop = labels_of([feature], here.calibration.gold, "classes").tolist()
        if start == NO_LABEL:
            assert feature.extra["context"].count(text) != 1
            continue
        places = dict(zip(feature.extra["positions"].tolist(), feature.extra["offsets"].tolist(), strict=True))
        assert feature.extra["context"][places[start][0] : places[stop][1]] == text


def test_an_answer_that_stands_twice_or_beyond_the_window_labels_nothing(context):
    here = context("question-answering")
    feature = here.calibration.features[0]
    first = feature.extra["context"].split()[0]
    silent = {**feature.extra, "start": None}
    twice = dataclasses.replace(feature, extra={**silent, "context": f"{feature.extra['context']} {first}"})
    beyond = dataclasses.replace(feature, extra={**silent, "context": f"{feature.extra['context']} at Oz"})
    assert labels_of([twice], [(first,)], "classes").tolist() == [NO_LABEL, NO_LABEL]
    assert labels_of([beyond], [("Oz",)], "classes").tolist() == [NO_LABEL, NO_LABEL]


def test_rows_without_a_label_count_nothing():
    rows = torch.tensor([[2.0, 0.0], [0.0, 5.0]])
    known = label_loss(rows[:1], torch.tensor([1]), "classes")
    assert torch.equal(label_loss(rows, torch.tensor([1, NO_LABEL]), "classes"), known)
    assert label_loss(rows, torch.tensor([NO_LABEL, NO_LABEL]), "classes") == 0


def test_sets_and_values_have_losses_of_their_own():
    sets, values = torch.tensor([[1.0, 0.0]]), torch.tensor([[2.5]])
    assert label_loss(torch.zeros(1, 2), sets, "sets") == pytest.approx(np.log(2))
    assert label_loss(torch.tensor([[1.0]]), values, "values") == pytest.approx(2.25)
