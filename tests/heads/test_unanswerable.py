"""Questions without an answer: SQuAD 2.0's own numbers, and a threshold that is fixed elsewhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from optimize.heads._squad import best_threshold, score_of
from optimize.heads.question_answering import HEAD, NO_ANSWER
from optimize.training.labels import labels_of

CONTEXT = "Anna lives in Paris . Bob lives in London ."
LONG = "the cat sat on the mat . " * 20 + CONTEXT


def row_of(answers, context=CONTEXT):
    return {"context": context, "question": "where does bob live ?", "answers": answers}


def saying(phrase, null=0.0):
    """A model that gives a phrase 10 as start and as end where a window shows it, and [CLS] half of `null` as each."""

    def model(feature):
        logits = np.zeros((2, feature.tokens), dtype=np.float32)
        logits[:, 0] = null / 2
        start = feature.extra["context"].find(phrase)
        for side, wanted in ((0, start), (1, start + len(phrase))):
            hits = feature.extra["offsets"][:, side] == wanted
            hits[0] = False  # the first token's place in the text is not one
            logits[side, feature.extra["positions"][hits]] = 10
        return {"start_logits": logits[0], "end_logits": logits[1]}

    return model


@pytest.fixture
def encoded(make_text):
    """Two questions: one with an answer and one without."""
    return HEAD.encode([row_of({"text": ["London"], "answer_start": [35]}), row_of({"text": []})], make_text())


@pytest.mark.parametrize(("null", "texts"), [(19.0, ["London", "London"]), (20.0, ["London"] * 2), (21.0, ["", ""])])
def test_no_answer_has_to_score_more_than_the_best_span(encoded, run, null, texts) -> None:
    assert run(HEAD, encoded, saying("London", null)).decisions.tolist() == texts


@pytest.mark.parametrize(("threshold", "texts"), [(0.9, ["", ""]), (1.0, ["London", "London"])])
def test_the_threshold_is_what_it_has_to_score_more(encoded, run, threshold, texts) -> None:
    fixed = replace(encoded, thresholds={NO_ANSWER: threshold})

    assert run(HEAD, fixed, saying("London", 21.0)).decisions.tolist() == texts


def test_both_kinds_of_questions_are_scored_by_themselves(encoded, run) -> None:
    score = run(HEAD, encoded, saying("in London"))

    assert score.statistics.tolist() == [[pytest.approx(2 / 3), 0], [0, 0]]
    assert score.others == {
        "exact_match": 0.0,
        "has_answer_f1": pytest.approx(2 / 3),
        "has_answer_exact_match": 0.0,
        "no_answer_f1": 0.0,
        "no_answer_exact_match": 0.0,
    }
    declined = run(HEAD, encoded, saying("in London", 99.0))
    assert (declined.value, declined.others["no_answer_f1"], declined.others["has_answer_f1"]) == (0.5, 1.0, 0.0)
    assert declined.right.tolist() == [False, True]


def test_the_least_of_all_windows_is_no_answers_score(make_text) -> None:
    encoded = HEAD.encode([row_of([], LONG)], make_text(48))
    nulls = np.linspace(30.0, 5.0, len(encoded.features))
    answers = [[(4.0, 0, 3), (null, 0, 0)] for null in nulls]

    assert len(nulls) > 2
    for threshold, decision in ((0.9, ""), (1.1, "the")):
        score = HEAD.score(replace(encoded, thresholds={NO_ANSWER: threshold}), answers)
        assert score.decisions.tolist() == [decision]


def test_rows_that_all_have_answers_are_scored_without_a_threshold(make_text, run) -> None:
    encoded = HEAD.encode([row_of(["London"])], make_text())
    fixed = replace(encoded, thresholds={NO_ANSWER: -99.0})

    score = run(HEAD, fixed, saying("London", 99.0))

    assert (score.decisions.tolist(), score.others) == (["London"], {"exact_match": 1.0})
    assert not HEAD.fit.needed(encoded)
    assert [len(answers[0]) for answers in HEAD.constants(encoded)] == [1, 1, 1, 1]


# evaluate-v2.0.py, by hand: (answer, right answers) -> (F1, exact match)
OFFICIAL = {
    "declined, rightly": ("", (), (1.0, 1.0)),
    "answered, wrongly": ("London", (), (0.0, 0.0)),
    "declined, wrongly": ("", ("London",), (0.0, 0.0)),
    "exact": ("the London!", ("London",), (1.0, 1.0)),
    "in part": ("in London", ("London", "London city now"), (2 / 3, 0.0)),
    "an article is no answer": ("the", (), (1.0, 1.0)),
    "an article where there is an answer": ("the", ("London",), (0.0, 0.0)),
    "a right answer of an article beside another": ("", ("the", "London"), (0.0, 0.0)),
    "a right answer of an article alone": ("", ("the",), (1.0, 1.0)),
}


@pytest.mark.parametrize(("text", "golds", "expected"), OFFICIAL.values(), ids=OFFICIAL)
def test_scores_are_those_of_the_official_script(text, golds, expected) -> None:
    assert score_of(text, golds, may_decline=True) == pytest.approx(expected)


def test_without_unanswerable_questions_they_are_those_of_version_1() -> None:
    assert score_of("the", ("a",), may_decline=False) == (0.0, 1.0)
    assert score_of("", ("London",), may_decline=False) == (0.0, 0.0)


def test_the_best_threshold_by_hand() -> None:
    # leads in order: -3 (F1 1), 0 (none to give), 1 (F1 0.5), 4 (none); declined: 1 where there is no answer
    leads, answered = np.array([1.0, -3.0, 4.0, 0.0]), np.array([0.5, 1.0, 0.0, 0.0])
    declined = np.array([0.0, 0.0, 1.0, 1.0])
    # answered up to -3: 1 + 2 = 3; up to 0: 1 + 1 = 2; up to 1: 1.5 + 1 = 2.5; all: 1.5
    assert best_threshold(leads, answered, declined) == -1.5


@pytest.mark.parametrize(
    ("leads", "answered", "declined", "expected"),
    [
        ([2.0, 4.0], [1.0, 1.0], [0.0, 0.0], 5.0),  # all are answered best
        ([2.0, 4.0], [0.0, 0.0], [1.0, 1.0], 1.0),  # none is
        ([2.0, 4.0], [0.0, 0.0], [0.0, 0.0], 1.0),  # all the same: the nearest to 0
        ([-3.0, -3.0], [1.0, 0.0], [0.0, 1.0], -2.0),  # equal leads cannot be told apart
        ([-np.inf, 2.0], [1.0, 0.0], [0.0, 1.0], 1.0),
        ([-np.inf], [1.0], [0.0], 0.0),
    ],
)
def test_thresholds_lie_between_and_beyond(leads, answered, declined, expected) -> None:
    assert best_threshold(np.array(leads), np.array(answered), np.array(declined)) == expected


def test_no_other_threshold_is_better() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        leads, answered = rng.integers(-3, 4, 12).astype(float), rng.random(12).round(1)
        declined = rng.integers(0, 2, 12).astype(float)

        def total(threshold, scores=(leads, answered, declined)):
            return np.where(scores[0] > threshold, scores[2], scores[1]).sum()

        best = max(total(threshold) for threshold in np.arange(-5, 6, 0.5))
        assert total(best_threshold(leads, answered, declined)) == pytest.approx(best)


def test_the_threshold_is_the_one_with_which_the_answers_score_best(encoded, run) -> None:
    answers = [
        HEAD.decide(feature, HEAD.read(feature, saying("London", null)(feature)))
        for feature, null in zip(encoded.features, (12.0, 17.0), strict=True)
    ]

    thresholds = HEAD.fit.thresholds(encoded, answers)

    assert HEAD.fit.needed(encoded)
    assert thresholds == {NO_ANSWER: -5.5}
    assert HEAD.score(replace(encoded, thresholds=thresholds), answers).value == 1.0
    assert HEAD.score(encoded, answers).value == 0.5


def test_the_best_constant_may_be_no_answer(make_text) -> None:
    encoded = HEAD.encode([row_of([]), row_of([]), row_of("Anna")], make_text())
    fixed = replace(encoded, thresholds={NO_ANSWER: 7.0})

    scores = [HEAD.score(fixed, answers) for answers in HEAD.constants(fixed)]

    said = ["Anna", "Anna lives in", "Anna lives in Paris . Bob lives in London", CONTEXT, ""]
    assert [score.decisions.tolist() for score in scores] == [[text] * 3 for text in said]
    assert max(score.value for score in scores) == pytest.approx(2 / 3)
    assert scores[-1].value == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    "answers",
    [
        "London",
        ["London", "in London"],
        [{"text": "London", "answer_start": 35}],
        {"text": ["London"], "answer_start": [35]},
        {"text": "London"},
        {"text": np.array(["London"], dtype=object)},
    ],
    ids=str,
)
def test_answers_come_in_many_forms(make_text, answers) -> None:
    assert HEAD.encode([row_of(answers)], make_text()).gold[0][0] == "London"


@pytest.mark.parametrize("answers", [[], {"text": []}, {"text": [], "answer_start": []}, np.array([])], ids=repr)
def test_so_does_no_answer(make_text, answers) -> None:
    assert HEAD.encode([row_of(answers)], make_text()).gold == ((),)


def test_what_is_trained_on_is_the_first_token(make_text) -> None:
    encoded = HEAD.encode([row_of([]), row_of("London")], make_text())
    first, second = encoded.features
    start = CONTEXT.index("London")

    labels = labels_of(encoded.features, encoded.gold, "classes").tolist()

    (place,) = second.extra["positions"][second.extra["offsets"][:, 0] == start]
    assert labels == [0, place, 0, place]
    assert first.extra["positions"][0] == 0
