"""Nonsense that meets every limit: the verdict says that nothing was proven, and never that it passed."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doubles import FEW, Silent, untimed_engines
from safetensors.numpy import load_file, save_file

from optimize.evaluate.accuracy import best_constant, compare
from optimize.evaluate.classes import compare_classes
from optimize.evidence import answers_needed
from optimize.gates import Gates, judge
from optimize.heads import HEADS
from optimize.interfaces import Encoded, Feature, Score
from optimize.manifest import Constant, Drift, Measurement, Metric, Size
from optimize.measure import subjects
from optimize.planning import Options, make_plan
from optimize.running import run

LIMITS = Gates(max_relative_metric_drop=0.01, min_agreement=0.97)
KNOWING = Constant(value=0.5, lead=0.4, interval=(0.35, 0.45), agreement=0.55)


def measured(*, answers: int = 400, examples: int | None = None, constant: Constant | None = KNOWING) -> Measurement:
    """A model that answers as the reference does, every time."""
    metric = Metric(
        name="accuracy",
        value=0.9,
        reference=0.9,
        drop=0.0,
        relative_drop=0.0,
        confidence=0.95,
        interval=(0.0, 0.0),
        standard_error=0.0,
        examples=examples or answers,
        answers=answers,
        constant=constant,
    )
    still = {"max_abs": 0.0, "mean_abs": 0.0, "padding_max_abs": 0.0, "batch_max_abs": 0.0}
    drift = Drift(agreement=1.0, flips=0, decisions=answers, kl=0.0, cosine=None, compared=answers, **still)
    size = Size(bytes=1, ratio=0.25, by_component={}, by_dtype={})
    return Measurement(name="int8", artifact_digest="d", metric=metric, drift=drift, size=size)


def test_data_that_can_show_a_loss_add_no_check():
    verdict = judge(LIMITS, measured())
    assert (verdict.outcome, [check.name for check in verdict.checks]) == (
        "passed",
        ["max_relative_metric_drop", "min_agreement"],
    )


NOTHING = {
    "one example": (measured(answers=1), "1 example can prove nothing; certify on 299 or more"),
    "few examples": (measured(answers=19), "19 examples can prove nothing"),
    "too few answers for the limit": (
        measured(answers=298),
        "298 answers cannot prove a limit of 0.01: were all of them the reference's, 1.0% of others might not be",
    ),
    "a reference that knows nothing": (
        measured(constant=Constant(value=0.88, lead=0.02, interval=(-0.01, 0.05), agreement=0.6)),
        "so its answers prove nothing; check the checkpoint and the labels",
    ),
    "a reference that answers always the same": (
        measured(constant=Constant(value=0.9, lead=0.0, interval=(0.0, 0.0), agreement=1.0)),
        "the best answer that is the same for every text 0.9000 (lead 0.0000",
    ),
    "a lead that the limits would give away": (
        measured(constant=Constant(value=0.896, lead=0.004, interval=(0.001, 0.008), agreement=0.99)),
        "which may meet every limit on answers too; certify on data with more of every class",
    ),
}


@pytest.mark.parametrize(("measurement", "says"), NOTHING.values(), ids=NOTHING)
def test_what_meets_all_limits_and_proves_nothing_is_unverified(measurement: Measurement, says: str):
    verdict = judge(LIMITS, measurement)

    assert verdict.outcome == "unverified"
    assert [check.outcome for check in verdict.checks] == ["passed", "passed", "unverified"]
    assert says in verdict.checks[-1].reason


def test_what_fails_a_limit_failed_whatever_else_is_not_proven():
    low = measured(answers=3)
    assert judge(Gates(max_size_ratio=0.1), low).outcome == "failed"


def test_a_manifest_of_before_that_says_nothing_of_this_is_judged_by_its_limits():
    metric = measured().metric.model_copy(update={"answers": None, "constant": None})
    assert judge(LIMITS, measured().model_copy(update={"metric": metric})).outcome == "passed"


@pytest.mark.parametrize(("share", "answers"), [(0.01, 299), (0.05, 59), (0.5, 5), (0.0001, 598)])
def test_so_many_answers_show_a_share_at_95_percent(share: float, answers: int):
    assert answers_needed(share, confidence=0.95) == answers


def classified(gold: list[int], answers: list[int]) -> tuple[Encoded, Score]:
    """A split of two classes, and the score of answers to it."""
    features = tuple(Feature({"input_ids": np.zeros(1, dtype=np.int64)}, place) for place in range(len(gold)))
    encoded = Encoded(features, tuple(gold), 0, classes=("NEG", "POS"))
    return encoded, HEADS["text-classification"].score(encoded, list(np.eye(2)[answers]))


@pytest.mark.parametrize(
    ("gold", "answers", "outcome"),
    [
        ([1] * 400, [1] * 400, "unverified"),
        ([1] * 396 + [0] * 4, [1] * 396 + [0] * 4, "unverified"),
        ([1] * 200 + [0] * 200, [1] * 400, "unverified"),
        ([1] * 200 + [0] * 200, ([0] * 1 + [1] * 1) * 200, "unverified"),
        ([1] * 200 + [0] * 200, [1] * 180 + [0] * 220, "passed"),
    ],
    ids=["one class", "a rare class", "always the same answer", "chance", "a model that knows something"],
)
def test_what_classifiers_know_is_held_against_the_commonest_class(gold, answers, outcome):
    encoded, score = classified(gold, answers)
    constant = best_constant(HEADS["text-classification"], encoded, score, confidence=0.95, seed=0)
    metric = compare(score, score, confidence=0.95, seed=0).model_copy(update={"constant": constant})

    verdict = judge(Gates(max_metric_drop=0.02), measured().model_copy(update={"metric": metric}))

    assert constant.value == pytest.approx(max(gold.count(0), gold.count(1)) / len(gold))
    assert verdict.outcome == outcome


def test_a_rare_class_that_is_lost_fails_its_limits_where_accuracy_keeps_its_own():
    gold = np.array([0] * 2000 + [1] * 1940 + [2] * 60)
    kept, lost = (Encoded((), tuple(gold), 0, classes=("joy", "fear", "awe")), np.where(gold == 2, 0, gold))
    ours, theirs = (HEADS["text-classification"].score(kept, list(np.eye(3)[said])) for said in (lost, gold))
    classes, macro = compare_classes(ours.classes, theirs.classes, confidence=0.95, seed=0, resamples=50)
    metric = compare(ours, theirs, confidence=0.95, seed=0)
    found = measured().model_copy(update={"metric": metric.model_copy(update={"classes": classes, "macro_f1": macro})})

    limits = Gates(max_metric_drop=0.02, max_macro_f1_drop=0.05, max_class_f1_drop=0.05)
    checks = {check.name: check.outcome for check in judge(limits, found).checks}

    assert checks == {"max_metric_drop": "passed", "max_macro_f1_drop": "failed", "max_class_f1_drop": "failed"}


@pytest.mark.parametrize("head", ["token-classification", "question-answering"])
def test_a_checkpoint_of_zeros_does_not_pass(head, checkpoint, data_folder, tmp_path: Path, monkeypatch):
    model = Path(shutil.copytree(checkpoint(head), tmp_path / "zeros"))
    weights = {name: np.zeros_like(values) for name, values in load_file(model / "model.safetensors").items()}
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    pipeline = tmp_path / "lenient.yaml"
    pipeline.write_text("target: cpu\nstages: [export]\ngates: {max_metric_drop: 0.1}\n", encoding="utf-8")
    options = Options(model=str(model), data=str(data_folder(head)), pipeline=str(pipeline), examples=120, threads=1)
    monkeypatch.setattr(subjects, "measure_latency", untimed_engines)

    places = {"out": tmp_path / "out", "cache": tmp_path / "cache", **FEW}
    _, manifest = run(make_plan(replace(options, **places)), progress=Silent())

    assert manifest.verdict.outcome == "unverified"
    assert manifest.verdict.checks[-1].name == "better_than_constant"


TAGS = ("O", "B-PER", "I-PER")


def split_of(gold: list[Any], **extra: Sequence[Any]) -> Encoded:
    """An example for each right answer, of one feature."""
    ids = {"input_ids": np.zeros(3, dtype=np.int64)}
    features = []
    for place in range(len(gold)):
        features.append(Feature(ids, place, {name: values[place] for name, values in extra.items()}))
    return Encoded(tuple(features), tuple(gold), 0, classes=TAGS if "words" in extra else ("NEG", "POS"))


def one_hot(labels: list[int]) -> list[Any]:
    return list(np.eye(2)[labels])


HALF, RARE = [0, 1] * 200, [0] * 396 + [1] * 4
SETS, NUMBERS = [(1, 0), (0, 1)] * 200, [float(number) for number in range(400)]
SENTENCES = [np.array([0, 1, 2, 0]), np.array([0, 0, 0, 1])] * 200
WORDS = {"words": [np.arange(4)] * 400}
MASKED = [np.array([7, 8]), np.array([7, 9])] * 200
SPANS = {"Ada": (1.0, 0, 3), "Lisbon": (1.0, 13, 19)}
ASKED = ["Ada", "Lisbon"] * 200
OFFSETS = np.array([(0, 3), (4, 9), (10, 12), (13, 19), (20, 21)])
READ = {"context": ["Ada lives in Lisbon ."] * 400, "offsets": [OFFSETS] * 400, "nulls": [0] * 400}
TURNS = [np.array([np.cos(angle), np.sin(angle)]) for angle in np.linspace(0.1, 1.5, 400)]
PAIRS = [vector for turn in reversed(TURNS) for vector in (np.array([1.0, 0.0]), turn)]
PAIRED = Encoded(tuple(replace(split_of([0]).features[0], example=place // 2) for place in range(800)), (*NUMBERS,), 0)

ANSWERS: dict[str, tuple[str, Encoded, list[Any], bool]] = {
    "classes": ("text-classification", split_of(HALF), one_hot(HALF), True),
    "one class": ("text-classification", split_of(HALF), one_hot([0] * 400), False),
    "zeros": ("text-classification", split_of(HALF), [np.zeros(2)] * 400, False),
    "no numbers": ("text-classification", split_of(HALF), [np.full(2, np.nan)] * 400, False),
    "one class is right": ("text-classification", split_of([1] * 400), one_hot([1] * 400), False),
    "396 of one class": ("text-classification", split_of(RARE), one_hot(RARE), False),
    "always the other class": ("text-classification", split_of(HALF), one_hot([1, 0] * 200), False),
    "sets": ("text-classification", split_of(SETS), [2.0 * np.array(each) - 1 for each in SETS], True),
    "one set": ("text-classification", split_of(SETS), [np.ones(2)] * 400, False),
    "empty sets": ("text-classification", split_of(SETS), [-np.ones(2)] * 400, False),
    "values": ("text-classification", split_of(NUMBERS), [np.array([each]) for each in NUMBERS], True),
    "one value": ("text-classification", split_of(NUMBERS), [np.zeros(1)] * 400, False),
    "one value is right": ("text-classification", split_of([1.0] * 400), [np.array([each]) for each in NUMBERS], False),
    "choices": ("multiple-choice", split_of(HALF), HALF, True),
    "one choice": ("multiple-choice", split_of(HALF), [0] * 400, False),
    "tags": ("token-classification", split_of(SENTENCES, **WORDS), SENTENCES, True),
    "no entities": ("token-classification", split_of(SENTENCES, **WORDS), [np.zeros(4, int)] * 400, False),
    "entities all over": ("token-classification", split_of(SENTENCES, **WORDS), [np.ones(4, int)] * 400, False),
    "no entity is right": ("token-classification", split_of([np.zeros(4, int)] * 400, **WORDS), SENTENCES, False),
    "words": ("fill-mask", split_of(MASKED), [(each, np.zeros(2)) for each in MASKED], True),
    "one word": ("fill-mask", split_of(MASKED), [(np.full(2, 7), np.zeros(2))] * 400, False),
    "padding": ("fill-mask", split_of(MASKED), [(np.zeros(2, int), np.zeros(2))] * 400, False),
    "spans": ("question-answering", split_of([(each,) for each in ASKED], **READ), [[SPANS[e]] for e in ASKED], True),
    "first words": ("question-answering", split_of([(e,) for e in ASKED], **READ), [[SPANS["Ada"]]] * 400, False),
    "no spans": ("question-answering", split_of([(each,) for each in ASKED], **READ), [[]] * 400, False),
    "cosines": ("feature-extraction", PAIRED, PAIRS, True),
    "one vector for pairs": ("feature-extraction", PAIRED, [np.ones(2)] * 800, False),
    "vectors": ("feature-extraction", split_of([None] * 400), TURNS, True),
    "one vector": ("feature-extraction", split_of([None] * 400), [np.ones(2)] * 400, False),
    "vectors of zeros": ("feature-extraction", split_of([None] * 400), [np.zeros(2)] * 400, False),
}


@pytest.mark.parametrize(("head", "encoded", "answers", "knows"), ANSWERS.values(), ids=ANSWERS)
def test_a_reference_has_to_know_more_than_one_answer_for_all(head, encoded, answers, knows: bool):
    score = HEADS[head].score(encoded, answers)
    constant = best_constant(HEADS[head], encoded, score, confidence=0.95, seed=0)
    metric = compare(score, score, confidence=0.95, seed=0).model_copy(update={"constant": constant})

    verdict = judge(Gates(max_metric_drop=0.02), measured().model_copy(update={"metric": metric}))

    doubts = {check.name for check in verdict.checks if check.outcome == "unverified"}
    assert (metric.drop, doubts) == (0.0, set() if knows else {"better_than_constant"})
