"""What heads say of answers, in words that users know."""

import math
from dataclasses import replace

import numpy as np
import pytest

from optimize.evaluate.saying import run_and_say, sure_of, texts_of
from optimize.heads import HEADS

CLASSES = {"id2label": {0: "bad", 1: "good"}}
TAGS = {"id2label": {0: "O", 1: "B-PER", 2: "B-LOC"}}
EVEN = math.log(3)
"""The logit of a class beside one of 0 that gives it three quarters."""


@pytest.fixture
def say(make_text):
    """What a head says of rows where a model has these decisive rows for each feature."""

    def call(name, rows, *decisive, **config):
        head = HEADS[name]
        encoded = head.encode(rows, make_text(**config))
        pairs = list(zip(encoded.features, map(np.array, decisive), strict=True))
        answers = [head.decide(feature, each) for feature, each in pairs]
        return head.say(encoded, answers, [sure_of(head, each) for _, each in pairs])

    return call


def test_a_class_is_said_by_its_name_with_its_softmax(say):
    rows = [{"text": "the cat", "label": 1}, {"text": "a dog", "label": 1}]
    right, wrong = say("text-classification", rows, [[0, EVEN]], [[EVEN, 0]], **CLASSES)

    assert (right.answer, right.gold, right.confidence) == ("good", "good", pytest.approx(0.75))
    assert right.decisions == ((pytest.approx(0.75), True),)
    assert (wrong.answer, wrong.gold) == ("bad", "good")
    assert wrong.decisions == ((pytest.approx(0.75), False),)


def test_a_set_of_classes_is_as_sure_as_its_least_sure_class(say):
    rows = [{"text": "the cat", "label": [1]}, {"text": "a dog", "label": [0, 1]}]
    first, second = say("text-classification", rows, [[-EVEN, 9.0]], [[-9.0, -9.0]], **CLASSES)

    assert (first.answer, first.gold, first.confidence) == ("good", "good", pytest.approx(0.75))
    assert (second.answer, second.gold) == ("none", "bad, good")
    assert [right for _, right in second.decisions] == [False, False]


def test_a_number_has_no_confidence(say):
    (said,) = say("text-classification", [{"text": "the cat", "label": 2.5}], [[2.25]], id2label={0: "LABEL_0"})

    assert (said.answer, said.gold, said.confidence, said.decisions) == ("2.25", "2.5", None, ())


def test_a_model_that_answers_no_number_chooses_no_class(say):
    (said,) = say("text-classification", [{"text": "the cat", "label": 1}], [[math.nan, 0]], **CLASSES)

    assert (said.answer, said.confidence) == ("no number", 0.0)


def test_entities_are_said_with_their_types_and_words_that_are_not_judged_are_left_out(say):
    rows = [{"tokens": ["x", "Anna", "Bob", "in", "Paris"], "tags": [-100, 1, 1, 0, 2]}]
    logits = [[0, EVEN * 2, 0], [9, 0, 0], [9, 0, 0], [0, 0, 9]]
    (said,) = say("token-classification", rows, logits, **TAGS)

    assert said.gold == "Anna (PER), Bob (PER), Paris (LOC)"
    assert said.answer == "Anna (PER), Paris (LOC)"
    assert [right for _, right in said.decisions] == [True, False, True, True]
    assert said.confidence == pytest.approx(9 / 11)


def test_words_without_entities_are_said_with_their_classes(say):
    rows = [{"tokens": ["the", "cat"], "tags": [0, 1]}]
    (said,) = say("token-classification", rows, [[9, 0], [9, 0]], id2label={0: "DET", 1: "NOUN"})

    assert (said.answer, said.gold) == ("the (DET), cat (DET)", "the (DET), cat (NOUN)")


def test_a_choice_is_said_by_its_text(say):
    rows = [{"context": "the cat", "choices": ["sat", "flew"], "label": 0}]
    (said,) = say("multiple-choice", rows, [[0, EVEN]])

    assert (said.answer, said.gold, said.confidence) == ("flew", "sat", pytest.approx(0.75))


def test_an_answer_is_a_span_and_as_sure_as_its_start_times_its_end(say):
    row = {"context": "Anna lives in Paris", "question": "where ?", "answers": ["Paris", "in Paris"]}
    (said,) = say("question-answering", [row], [[0, 0, 0, 99], [0, 0, 0, math.log(9)]])

    assert (said.answer, said.gold) == ("Paris", "Paris | in Paris")
    assert said.confidence == pytest.approx(9 / 12)


def test_no_answer_is_said_where_a_question_has_none(say):
    row = {"context": "Anna lives in Paris", "question": "where ?", "answers": []}
    (said,) = say("question-answering", [row], [[9, 0, 0, 0, 0], [9, 0, 0, 0, 0]])

    assert (said.answer, said.gold) == ("no answer", "no answer")


def test_masked_words_are_said_as_the_vocabulary_has_them(say, tokenizer):
    names = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    logits = np.zeros((1, len(names)))
    logits[0, names.index("dog")] = 99
    (said,) = say("fill-mask", [{"text": "1 2"}, {"text": "cat"}][1:], logits)

    assert (said.answer, said.gold, said.confidence) == ("dog", "cat", pytest.approx(1.0))


def test_a_scored_pair_is_said_by_its_cosine_and_a_vector_alone_is_not(say):
    pair = {"text": "the cat", "text_pair": "a dog", "score": 4.0}
    (said,) = say("feature-extraction", [pair], [[1.0, 0.0]], [[3.0, 4.0]])

    assert (said.answer, said.gold) == ("0.6000", "4")
    assert say("feature-extraction", [{"text": "the cat"}], [[1.0, 0.0]]) == []


@pytest.mark.parametrize(
    ("name", "row", "texts"),
    [
        ("text-classification", {"text": "a", "text_pair": "b", "label": "1"}, {"text": "a", "text_pair": "b"}),
        ("token-classification", {"tokens": ["a", "b"], "tags": ["O", "O"], "classes": ("O",)}, {"tokens": "a b"}),
        ("multiple-choice", {"context": "a", "choices": {"text": ["b", "c"], "label": ["A", "B"]}, "label": "A"},
         {"context": "a", "choices": "b | c"}),
        ("text-classification", {"text": "half \ud800 one", "label": 1}, {"text": "half ? one"}),
        ("question-answering", {"id": "7", "context": "a", "question": "b", "answers": ["a"]},
         {"context": "a", "question": "b"}),
    ],
)  # fmt: skip
def test_the_texts_of_a_row_are_what_a_reader_needs_and_no_answer(name, row, texts):
    assert texts_of(row, HEADS[name]) == texts


@pytest.mark.parametrize(("kept", "said"), [({}, ["good"]), ({"rows": ()}, [])])
def test_nothing_is_said_of_rows_that_an_encoding_does_not_keep(kept, said, make_text, silent):
    head = HEADS["text-classification"]
    encoded = replace(head.encode([{"text": "the cat", "label": 1}], make_text(**CLASSES)), **kept)

    found = run_and_say(lambda _: {"logits": np.array([[0.0, 1.0]])}, head, encoded, pad_id=0, progress=silent)

    assert [each.answer for each in found.said] == said
    assert found.outputs.answers[0].tolist() == [0.0, 1.0]


def test_classes_without_names_are_said_by_their_numbers(make_text):
    head = HEADS["text-classification"]
    encoded = replace(head.encode([{"text": "the cat", "label": 1}], make_text(**CLASSES)), classes=())

    (said,) = head.say(encoded, [np.array([0.0, 1.0])], [np.array([0.5])])
    assert (said.answer, said.gold) == ("1", "1")
