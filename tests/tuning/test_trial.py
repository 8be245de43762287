"""One trial: what it learns from, when it is measured, and the loss that transformers' class makes of its labels."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from doubles import Heard
from tuning.cases import short_options

from optimize.checkpoint import load_model
from optimize.data.wanted import Wanted
from optimize.errors import DataError
from optimize.heads import HEADS
from optimize.training.batches import answer, answers_of, make_batch
from optimize.training.labels import label_loss, labels_by_name, labels_of, teaching
from optimize.tuning import work
from optimize.tuning.plan import plan_tuning
from optimize.tuning.space import Tuning
from optimize.tuning.trial import Watch, collator, last_checkpoint

TRAINED = [name for name in HEADS if name != "feature-extraction"]


@pytest.mark.parametrize("head", TRAINED)
def test_the_loss_of_the_heads_class_is_that_of_stages_that_train(head, context):
    here = context(head)
    answers = answers_of(here.head, here.calibration)
    features = teaching(here.calibration.features, here.calibration.gold, answers)[:4]
    model = load_model(here.reference.path, here.head.auto_class).eval()
    batch = collator(here.calibration, here.head, pad_id=0)([features[:2], features[2:]])

    with torch.no_grad():
        ours = model(**batch).loss
        rows = answer(model, make_batch(features, pad_id=0), here.head).rows
        theirs = label_loss(rows, labels_of(features, here.calibration.gold, answers), answers)
    # transformers' class looks for spans in question and padding, too.
    near = 0.1 if head == "question-answering" else 1e-4
    assert float(ours) == pytest.approx(float(theirs), rel=near)


def test_a_window_without_its_answer_teaches_nothing_and_one_beside_it_is_passed_over(context):
    here = context("question-answering")
    known, *_, longest = sorted(here.calibration.features, key=lambda feature: feature.tokens)
    elsewhere = replace(known, extra={**known.extra, "context": "at Oz and at Oz", "start": None})
    gold = dict(enumerate(here.calibration.gold)) | {known.example: ("Oz",)}

    assert teaching([elsewhere], gold, "classes") == []
    assert labels_by_name([elsewhere], gold, "classes")["start_positions"].item() > 10_000
    model = load_model(here.reference.path, here.head.auto_class).eval()
    losses = []
    for features in ([longest], [longest, elsewhere]):
        batch = make_batch(features, pad_id=0)
        losses.append(model(**batch.inputs, **labels_by_name(features, gold, "classes")).loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_data_whose_answers_stand_nowhere_for_sure_are_refused(tmp_path, checkpoint, monkeypatch):
    for split in ("train", "validation"):
        rows = [
            {"question": f"{i}?", "context": f"{split} {i} is {i} and {i}", "answers": {"text": [str(i)]}}
            for i in range(10, 60)
        ]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    asked = short_options(tmp_path, checkpoint("question-answering"), tmp_path, "question-answering")
    with pytest.raises(DataError, match="no training example has a label that says where"):
        work.load(plan_tuning(asked), Heard())


@pytest.mark.parametrize(("total", "count"), [(100, 8), (7, 8), (8, 8), (3, 1), (969, 8), (10, 3)])
def test_a_trial_is_measured_so_often_at_even_distances_and_at_its_end(total, count):
    watch = Watch(SimpleNamespace(space=Tuning(measurements=count)), None, None, None, total, None, 1.0)
    due = [step for step in range(1, total + 1) if watch.is_due(step)]

    assert len(due) == min(count, total)
    assert due[-1] == total
    gaps = {after - before for before, after in zip([0, *due], due, strict=False)}
    assert max(gaps) - min(gaps) <= 1


def test_the_last_whole_checkpoint_is_gone_on_from(tmp_path):
    assert last_checkpoint(tmp_path) is None
    for step, state in ((9, "{}"), (10, "{}"), (100, '{"log'), (200, None)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if state is not None:
            (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(state, encoding="utf-8")
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")


def test_few_rows_are_shared_so_that_most_of_them_train(tmp_path, checkpoint, data_folder):
    head = "text-classification"
    asked = short_options(tmp_path, checkpoint(head), data_folder(head), tuning_examples=2000, calibration_examples=256)
    plan = plan_tuning(replace(asked, training_examples=100_000))
    assert isinstance(plan.wanted, Wanted)
    loaded = work.load(plan, Heard())

    counts = {name: record.count for name, record in loaded.splits.records.items()}
    assert counts["training"] == 210
    assert counts["tuning"] + counts["calibration"] == 90
    assert counts["tuning"] > 5 * counts["calibration"]
