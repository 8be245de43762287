"""What stages that train put into a model and read from it: batches, answers of their kinds, and a score."""

import numpy as np
import pytest
import torch
import transformers

from optimize.evaluate.predict import run_split
from optimize.heads import HEADS
from optimize.interfaces import Encoded
from optimize.training.batches import answer, answers_of, make_batch, score_of


def model_of(here):
    return getattr(transformers, here.head.auto_class).from_pretrained(here.reference.path).eval()


def test_masked_logits_are_those_of_the_whole_text(context):
    here = context("fill-mask")
    model, features = model_of(here), here.calibration.features[:3]
    batch = make_batch(features, pad_id=0)
    with torch.no_grad():
        rows, whole = answer(model, batch, here.head).rows, model(**batch.inputs).logits
    expected = np.concatenate([whole[i, one.extra["positions"]].numpy() for i, one in enumerate(features)])
    assert np.allclose(rows.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(("gold", "kind"), [(1, "classes"), ((0, 1), "sets"), (2.5, "values")])
def test_what_the_gold_is_says_how_answers_are_compared(gold, kind):
    assert answers_of(HEADS["text-classification"], Encoded((), (gold,), 0)) == kind
    assert answers_of(HEADS["question-answering"], Encoded((), (("an answer",),), 0)) == "classes"


def test_the_score_of_a_model_is_that_of_its_session(context):
    here = context("question-answering")
    outputs = run_split(here.open("torch", here.reference.path), here.head, here.tuning, pad_id=0)
    assert score_of(model_of(here), here.tuning, here.head).value == here.head.score(here.tuning, outputs.answers).value
