"""Question answering: windows, spans, and SQuAD's own arithmetic."""

from itertools import pairwise

import numpy as np
import pytest

from optimize.errors import DataError
from optimize.heads._squad import f1, matches, normalize
from optimize.heads.question_answering import HEAD

CONTEXT = "Anna lives in Paris . Bob lives in London ."


def row_of(answers, context=CONTEXT, question="where does bob live ?"):
    return {
        "context": context,
        "question": question,
        "answers": {"text": answers, "answer_start": [context.find(a) for a in answers]},
    }


def pointing_at(phrase):
    """Return a model that is sure of `phrase` wherever a window shows all of it."""

    def model(feature):
        logits = np.zeros((2, feature.tokens), dtype=np.float32)
        start = feature.extra["context"].find(phrase)
        offsets = feature.extra["offsets"]
        for side, wanted in ((0, start), (1, start + len(phrase))):
            hits = feature.extra["positions"][offsets[:, side] == wanted]
            logits[side, hits] = 10
        return {"start_logits": logits[0], "end_logits": logits[1]}

    return model


def test_the_answer_is_cut_from_the_context_with_its_case(make_text, run):
    encoded = HEAD.encode([row_of(["London"]), row_of(["Paris"])], make_text())
    score = run(HEAD, encoded, pointing_at("London"))
    assert score.decisions.tolist() == ["London", "London"]
    assert score.statistics.tolist() == [[1, 1], [0, 0]]
    assert (score.metric, score.value, score.others["exact_match"]) == ("f1", 0.5, 0.5)
    assert score.right.tolist() == [True, False]


def test_the_best_of_several_golds_counts(make_text, run):
    encoded = HEAD.encode([row_of(["Bob lives in London", "in London", "Paris"])], make_text())
    score = run(HEAD, encoded, pointing_at("London"))
    assert score.statistics.tolist() == [[pytest.approx(2 / 3), 0]]


def test_only_tokens_of_the_context_can_be_answers(make_text):
    (feature,) = HEAD.encode([row_of(["London"])], make_text()).features
    logits = np.zeros(feature.tokens)
    logits[:4] = 100  # [CLS] and the question
    rows = HEAD.read(feature, {"start_logits": logits, "end_logits": logits})
    assert rows.shape == (2, 10)
    assert rows.max() == 0


def test_spans_run_forwards_and_are_at_most_thirty_tokens(make_text):
    encoded = HEAD.encode([row_of(["cat"], context="cat " * 45)], make_text(max_tokens=64))
    (feature,) = encoded.features
    rows = np.zeros((2, 45))
    rows[0, [40, 5]] = 9, 8
    rows[1, [2, 36, 34]] = 9, 8, 7
    spans = HEAD.decide(feature, rows)
    assert spans[0] == (15.0, 5 * 4, 34 * 4 + 3)
    assert len(spans) == 20
    assert all(0 < stop - start <= 30 * 4 for _, start, stop in spans)
    assert [span[0] for span in spans] == sorted((span[0] for span in spans), reverse=True)


def test_a_long_context_becomes_windows_that_overlap_and_lose_nothing(make_text):
    context = "the cat sat on the mat . " * 20 + "Bob lives in London ."
    encoded = HEAD.encode([row_of(["London"], context), row_of(["Paris"])], make_text(48))
    shown = [f.extra["offsets"] for f in encoded.features if f.example == 0]
    assert len(shown) > 2
    assert [f.example for f in encoded.features].count(1) == 1
    assert len(np.unique(np.concatenate(shown), axis=0)) == 20 * 7 + 5
    assert all(later[0, 0] < earlier[-1, 0] for earlier, later in pairwise(shown))
    assert encoded.truncated == 0
    assert max(f.tokens for f in encoded.features) == 48


def test_the_best_window_answers(make_text, run):
    context = "the cat sat on the mat . " * 20 + "Bob lives in London ."
    encoded = HEAD.encode([row_of(["London"], context)], make_text(48))
    score = run(HEAD, encoded, pointing_at("London"))
    assert score.value == 1.0


def test_windows_of_the_usual_size_overlap_by_128_tokens(make_text):
    context = "the cat sat on the mat . " * 100
    first, second, *_ = HEAD.encode([row_of(["cat"], context)], make_text(384)).features
    shared = np.intersect1d(first.extra["offsets"][:, 0], second.extra["offsets"][:, 0])
    assert len(shared) == 128


def test_a_question_without_end_is_cut_and_counted(make_text, tokenizer):
    rows = [row_of(["London"], question="who is it " * 50), row_of(["London"])]
    encoded = HEAD.encode(rows, make_text(128))
    question = encoded.features[0].inputs["input_ids"][: encoded.features[0].extra["positions"][0]]
    assert encoded.truncated == 1
    assert len(question) == 32 + 2
    assert tokenizer.decode(question).endswith("it who is [SEP]")


@pytest.mark.parametrize(
    ("answer", "normal"),
    [("The  Eiffel-Tower!", "eiffeltower"), ("a an the", ""), ("An apple, a day.", "apple day")],
)
def test_answers_are_normalized_as_squad_does(answer, normal):
    assert normalize(answer) == normal


@pytest.mark.parametrize(
    ("said", "meant", "expected"),
    [
        ("the cat sat", "cat", 2 / 3),
        ("cat cat dog", "cat dog dog", 2 / 3),
        ("cat", "dog", 0.0),
        ("the", "a", 0.0),
        ("The Cat.", "cat", 1.0),
    ],
)
def test_f1_of_words_by_hand(said, meant, expected):
    assert f1(said, meant) == pytest.approx(expected)


def test_answers_match_once_normalized():
    assert matches("the U.S.", "US")
    assert not matches("US", "USA")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (row_of(["Rome"]), "row 1 has the answer 'Rome', which is not in its context"),
        (row_of([""]), "row 1 has an answer without text; give .* an empty one where there is no answer"),
        (row_of(["Paris"]) | {"answers": ""}, "row 1 has an answer without text"),
        (row_of(["Paris"]) | {"answers": [{"answer_start": 3}]}, "row 1 has an answer without text"),
        (row_of(["Paris"]) | {"answers": [["Paris"]]}, "row 1 has an answer without text"),
        (row_of(["Paris"]) | {"answers": None}, "row 1 has no list of answer texts"),
        (row_of(["Paris"]) | {"answers": 3}, "row 1 has no list of answer texts"),
        (row_of(["Paris"]) | {"answers": {"answer_start": []}}, "row 1 has no list of answer texts"),
        (row_of(["Paris"]) | {"question": None}, "row 1 has no question"),
    ],
)
def test_rows_that_do_not_fit_are_refused(row, message, make_text):
    with pytest.raises(DataError, match=message):
        HEAD.encode([row_of(["Paris"]), row], make_text())


def test_a_limit_that_leaves_no_room_is_refused(make_text):
    with pytest.raises(DataError, match="16 tokens hold no context; allow 32 or more"):
        HEAD.encode([row_of(["Paris"])], make_text(16))


def test_a_model_that_answers_nan_still_gets_a_score(make_text, run):
    encoded = HEAD.encode([row_of(["London"])], make_text())
    nothing = np.full(encoded.features[0].tokens, np.nan)
    score = run(HEAD, encoded, lambda _: {"start_logits": nothing, "end_logits": nothing})
    assert score.value == 0.0


def test_a_window_without_context_gives_no_span(make_text):
    (feature,) = HEAD.encode([row_of(["London"])], make_text()).features
    assert HEAD.decide(feature, np.zeros((2, 0))) == []
